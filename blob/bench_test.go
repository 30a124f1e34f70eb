package blob_test

import (
	"bytes"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg/blob/blobtest"
)

const benchName = "files/ABCD/ABCD000000000000000000000000000000000000000000000000000000000000"

func BenchmarkSign(b *testing.B) {
	s := newShop(b, "")
	until := time.Now().Add(time.Hour)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.SignedURL(b.Context(), benchName, until); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkVerify is a request whose signature is right and whose name is not
// there: everything but the file and the network.
func BenchmarkVerify(b *testing.B) {
	s := newShop(b, "")
	u := s.url(b, benchName, time.Hour)
	h := s.Handler(nil)
	req, err := http.NewRequest("GET", u, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w := &answerRecorder{header: http.Header{}}
			if h.ServeHTTP(w, req); w.status != 404 {
				b.Error(w.status)
			}
		}
	})
}

func BenchmarkServe(b *testing.B) {
	s := newShop(b, "")
	for _, size := range []int{1 << 10, 256 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			name := fmt.Sprint("serve/", size)
			s.put(b, name, blobtest.Bytes(size))
			u := s.url(b, name, time.Hour)
			b.SetBytes(int64(size))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					s.do(b, "GET", u)
				}
			})
		})
	}
}

func BenchmarkPut(b *testing.B) {
	s := newShop(b, "")
	data := blobtest.Bytes(200 << 10)
	var n atomic.Int64
	b.SetBytes(int64(len(data)))
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Put(b.Context(), fmt.Sprint("put/", n.Add(1)), int64(len(data)), bytes.NewReader(data)); err != nil {
				b.Error(err)
			}
		}
	})
}
