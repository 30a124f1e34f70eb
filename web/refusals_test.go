package web

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/opencmg/cmg"
)

func TestRefusalRing(t *testing.T) {
	g := NewRefusalRing(true)
	for i := range ringSize + 10 {
		g.Put(cmg.RefusalRecord{ID: fmt.Sprint("r", i), Code: "X"})
	}
	if len(g.Find("r9", 10)) != 0 || len(g.Find("r10", 10)) != 1 || len(g.Find(fmt.Sprint("r", ringSize+9), 10)) != 1 {
		t.Error("it is not the oldest ten that are forgotten")
	}
	if newest := g.Find("", 2); len(newest) != 2 || newest[0].ID != fmt.Sprint("r", ringSize+9) || newest[1].ID != fmt.Sprint("r", ringSize+8) {
		t.Errorf("newest: %+v", newest)
	}
	if g.Lost() != ringSize+10-ringPending {
		t.Errorf("%d were lost", g.Lost())
	}
	first := g.Take(3)
	if len(first) != 3 || first[0].ID != "r0" {
		t.Fatalf("taken: %+v", first)
	}
	g.Return(first)
	n := 0
	for rs := g.Take(100); len(rs) > 0; rs = g.Take(100) {
		n += len(rs)
	}
	if n != ringPending {
		t.Errorf("%d were taken, want %d", n, ringPending)
	}
	silent := NewRefusalRing(false)
	silent.Put(cmg.RefusalRecord{ID: "a"})
	if silent.Take(1) != nil || silent.Lost() != 0 || len(silent.Find("a", 1)) != 1 {
		t.Error("a ring that hands nothing on keeps for it")
	}
}

func TestRefusalRingIsServed(t *testing.T) {
	h := NewHealth("gateway")
	g := NewRefusalRing(false)
	h.Mount(RefusalsPath, g)
	g.Put(cmg.RefusalRecord{ID: "a", Code: "CMGService_X", Facts: []cmg.Fact{{Name: "n", Value: "v"}}})
	g.Put(cmg.RefusalRecord{ID: "b"})
	srv := httptest.NewServer(h.Handler())
	defer srv.Close()
	for query, want := range map[string]int{"?id=a": 1, "?id=c": 0, "": 2, "?limit=1": 1} {
		_, body := get(t, srv.Client(), "GET", srv.URL+RefusalsPath+query)
		var rs []cmg.RefusalRecord
		if err := json.Unmarshal([]byte(body), &rs); err != nil || rs == nil || len(rs) != want {
			t.Errorf("%q: %s, %v", query, body, err)
		}
	}
}

func TestRefusalRingByManyAtOnce(t *testing.T) {
	g := NewRefusalRing(true)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				g.Put(cmg.RefusalRecord{ID: fmt.Sprint(i)})
				g.Return(g.Take(2))
				g.Find("7", 3)
			}
		})
	}
	wg.Wait()
}
