package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencmg/cmg/ccm"
)

const (
	tasksFile      = "tasks.json"
	rememberedTask = 512
)

// A taskMemory knows the last tasks that the device was told of, so that none
// is done twice: one is told again where its answer was lost. Those that a
// restart would not do anyway are kept on disk.
type taskMemory struct {
	store *stateStore
	all   []rememberedGUID // oldest first
}

type rememberedGUID struct {
	GUID string `json:"guid"`
	Code int    `json:"code"`
}

func openTaskMemory(s *stateStore) (*taskMemory, error) {
	m := &taskMemory{store: s}
	file := filepath.Join(s.dir, tasksFile)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &m.all)
	}
	if err != nil {
		return nil, fmt.Errorf("read tasks %s: %w", file, err)
	}
	return m, nil
}

// codeOf gives what was answered to a task, and whether it was told before.
func (m *taskMemory) codeOf(guid string) (int, bool) {
	for _, t := range m.all {
		if t.GUID == guid {
			return t.Code, true
		}
	}
	return ccm.TaskOK, false
}

// remember keeps a task, on disk too where it says so.
func (m *taskMemory) remember(guid string, code int, onDisk bool) error {
	m.all = append(m.all, rememberedGUID{guid, code})
	if over := len(m.all) - rememberedTask; over > 0 {
		m.all = slices.Delete(m.all, 0, over)
	}
	if !onDisk {
		return nil
	}
	b, err := json.Marshal(m.all)
	if err != nil {
		return fmt.Errorf("write tasks: %w", err)
	}
	return m.store.write(tasksFile, b)
}
