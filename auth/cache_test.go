package auth

import (
	"sync"
	"testing"
	"time"
)

func TestCache(t *testing.T) {
	now := time.Now()
	c := newCache[int, string](1000)
	c.put(1, kept[string]{"one", now, now.Add(time.Minute)}, now)
	if v, ok := c.get(1, now); !ok || v != "one" {
		t.Errorf("got %q %v", v, ok)
	}
	for name, at := range map[string]time.Time{"before": now.Add(-1), "after": now.Add(time.Minute)} {
		if v, ok := c.get(1, at); ok {
			t.Errorf("%s its time: got %q", name, v)
		}
	}
	if v := c.put(1, kept[string]{"two", now, now.Add(time.Minute)}, now); v != "one" {
		t.Errorf("a second writer got %q, want what the first kept", v)
	}
	if v := c.put(1, kept[string]{"two", now, now.Add(time.Hour)}, now.Add(2*time.Minute)); v != "two" {
		t.Errorf("after its time: kept %q", v)
	}
}

func TestCacheIsBounded(t *testing.T) {
	now := time.Now()
	const size = 320
	c := newCache[int, int](size)
	for i := range 100 * size {
		c.put(i, kept[int]{i, now, now.Add(time.Hour)}, now)
		if _, ok := c.get(0, now); !ok {
			t.Fatalf("what is asked for all the time was dropped after %d others", i)
		}
	}
	n := 0
	for i := range c.shards {
		n += len(c.shards[i].new) + len(c.shards[i].old)
	}
	if n > size {
		t.Errorf("holds %d, want at most %d", n, size)
	}
}

func TestCacheByManyAtOnce(t *testing.T) {
	now := time.Now()
	c := newCache[int, int](64)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				key := (i * (g + 1)) % 200
				if v, ok := c.get(key, now); ok && v != key {
					t.Errorf("got %d for %d", v, key)
				}
				c.put(key, kept[int]{key, now, now.Add(time.Hour)}, now)
			}
		})
	}
	wg.Wait()
}
