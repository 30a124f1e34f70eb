//go:build linux

package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// calibrate does a fixed piece of work (AES-GCM records, P-256 verifications,
// pipe system calls, maps and allocations) on every core at once and gives
// the mean CPU time of a thread in ms. Time that others take is not counted:
// what is left is how fast the host lets a core run just now, which on a
// shared host changes by tens of per cent from minute to minute.
func calibrate() float64 {
	n := runtime.NumCPU()
	spent := make([]time.Duration, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			begin := threadCPU()
			calibWork()
			spent[i] = threadCPU() - begin
		})
	}
	wg.Wait()
	var sum time.Duration
	for _, d := range spent {
		sum += d
	}
	return sum.Seconds() * 1e3 / float64(n)
}

func threadCPU() time.Duration {
	const thread = 1 // RUSAGE_THREAD, getrusage(2)
	var ru syscall.Rusage
	syscall.Getrusage(thread, &ru) // cannot fail with these arguments
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

var calibKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // no randomness: nothing here could go on
	}
	return k
})

func calibWork() {
	k := calibKey()
	h := sha256.Sum256([]byte("calibrate"))
	sig, _ := ecdsa.SignASN1(rand.Reader, k, h[:])
	for range 150 {
		ecdsa.VerifyASN1(&k.PublicKey, h[:], sig)
	}
	block, _ := aes.NewCipher(make([]byte, 16))
	g, _ := cipher.NewGCM(block)
	buf, nonce := make([]byte, 16<<10, 17<<10), make([]byte, 12)
	for range 1000 {
		g.Seal(buf[:0], nonce, buf, nil)
	}
	var p [2]int
	if syscall.Pipe(p[:]) == nil {
		small := make([]byte, 2048)
		for range 5000 {
			syscall.Write(p[1], small)
			syscall.Read(p[0], small)
		}
		syscall.Close(p[0])
		syscall.Close(p[1])
	}
	for i := range 20 {
		m := map[string][]byte{}
		for j := range 200 {
			m[fmt.Sprint("header-", i, j)] = bytes.Repeat([]byte{'v'}, 64)
		}
		runtime.KeepAlive(m)
	}
}

// calibMain shows how steady the host is.
func calibMain([]string) error {
	for range 20 {
		begin := time.Now()
		cpu := calibrate()
		fmt.Printf("%.2f ms CPU, %.2f ms elapsed\n", cpu, time.Since(begin).Seconds()*1e3)
		time.Sleep(200 * time.Millisecond)
	}
	return nil
}
