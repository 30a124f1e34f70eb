package content_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/content"
)

// many is a folder of n files of size bytes.
func many(t testing.TB, n, size int) string {
	sizes := map[string]int{}
	for i := range n {
		sizes[fmt.Sprintf("folder %02d/file-%05d.bin", i%50, i)] = size
	}
	return folder(t, sizes)
}

// peak tells how much the heap grew at most while f ran, in bytes, seen every
// millisecond.
func peak(f func()) uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	now := func() uint64 {
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	runtime.GC()
	before, most := now(), uint64(0)
	ctx, cancel := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			most = max(most, now())
			<-tick.C
		}
	})
	f()
	cancel()
	watch.Wait()
	return max(most, before) - before
}

// TestMemory: neither a big file nor many small ones are held in memory.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 150 MB")
	}
	const most = 60 << 20
	d := newDepot(t)
	dir := many(t, 500, 20_000)
	write(t, dir, "big", bytes.Repeat([]byte("0123456789abcdef"), 8<<20))
	var g cmg.PackageGrant
	if n := peak(func() { _, g = d.add(t, dir) }); n > most {
		t.Errorf("add took %d MiB", n>>20)
	}
	m := d.locate(t, g, time.Hour)
	n := peak(func() { // store and client together
		if _, err := d.downloader(t, nil).Fetch(t.Context(), m, t.TempDir(), nil); err != nil {
			t.Error(err)
		}
	})
	if n > most {
		t.Errorf("fetch took %d MiB", n>>20)
	}
}

// BenchmarkLocate answers for a package of 5,000 files.
func BenchmarkLocate(b *testing.B) {
	d := newDepot(b)
	_, g := d.add(b, many(b, 5000, 10))
	l, err := content.NewLocator(content.LocatorConfig{Links: d})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		doc, err := l.Locate(b.Context(), g, time.Now().Add(time.Hour))
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(doc)))
	}
}

func BenchmarkReadManifest(b *testing.B) {
	d := newDepot(b)
	_, g := d.add(b, many(b, 5000, 10))
	doc := d.locate(b, g, time.Hour).XML()
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		read(b, doc)
	}
}

// shapes are 100 MB each.
var shapes = []struct{ files, size int }{{5000, 20_000}, {500, 200_000}, {1, 100_000_000}}

func BenchmarkAdd(b *testing.B) {
	for _, s := range shapes {
		b.Run(fmt.Sprintf("%dx%d", s.files, s.size), func(b *testing.B) {
			dir := many(b, s.files, s.size)
			b.SetBytes(int64(s.files * s.size))
			for b.Loop() {
				b.StopTimer()
				d := newDepot(b)
				b.StartTimer()
				b.ReportMetric(float64(peak(func() { d.add(b, dir) }))/(1<<20), "peak-MiB")
			}
		})
	}
}

func BenchmarkFetch(b *testing.B) {
	for _, s := range shapes {
		b.Run(fmt.Sprintf("%dx%d", s.files, s.size), func(b *testing.B) {
			d := newDepot(b)
			_, g := d.add(b, many(b, s.files, s.size))
			m := d.locate(b, g, time.Hour)
			l := d.downloader(b, nil)
			b.SetBytes(int64(s.files * s.size))
			for b.Loop() {
				to := b.TempDir()
				b.ReportMetric(float64(peak(func() {
					if _, err := l.Fetch(b.Context(), m, to, nil); err != nil {
						b.Fatal(err)
					}
				}))/(1<<20), "peak-MiB")
			}
		})
	}
}
