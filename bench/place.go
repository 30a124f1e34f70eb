//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/opencmg/cmg/auth"
)

// Ports, above the runner's -ports.
const (
	portBackend = 0   // the server inside
	portFront   = 443 // where clients come in
	portChannel = 500 // where connectors come in
	portDelay   = 501 // the same, behind the delay proxy
	portInner   = 600 // between two processes of one end

	portGatewayStatus         = 602
	portConnectionPointStatus = 603
)

func local(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// makeCertificates puts into dir what the peers show one another: an ECDSA
// P-256 authority ca.pem, and server and client as .pem, .key and -both.pem.
func makeCertificates(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	ca, err := auth.NewAuthority("bench", 24*time.Hour)
	if err == nil {
		err = ca.Save(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key"))
	}
	if err != nil {
		return fmt.Errorf("certificates: %w", err)
	}
	for _, name := range []string{"server", "client"} {
		is, err := ca.Issue(auth.CertRequest{Name: name, DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, Client: true})
		if err == nil {
			err = errors.Join(is.Save(filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")),
				os.WriteFile(filepath.Join(dir, name+"-both.pem"), append(is.CertPEM, is.KeyPEM...), 0o600))
		}
		if err != nil {
			return fmt.Errorf("certificates: %s: %w", name, err)
		}
	}
	return nil
}

// opensslClient has every OpenSSL client ask for what the Go ones do.
const opensslClient = `openssl_conf = c
[c]
ssl_conf = s
[s]
system_default = d
[d]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_128_GCM_SHA256
Groups = X25519
`

const insideEnv = "BENCH_INSIDE" // set in the namespace

// ownNamespace runs this program again in a network namespace of its own, so
// that ports, neighbours and TCP settings are ours. It is false where that
// cannot be had, and then says why.
func ownNamespace() (done bool, err error) {
	if os.Getenv(insideEnv) != "" {
		return false, enterNamespace()
	}
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: not root: measuring in this machine's network, not in one of our own")
		return false, nil
	}
	if _, err := exec.LookPath("ip"); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no ip (iproute2): measuring in this machine's network, not in one of our own")
		return false, nil
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: no network of our own:", err)
		return false, nil
	}
	return true, cmd.Wait()
}

func enterNamespace() error {
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("loopback up: %w: %s", err, out)
	}
	// What a kernel does not let us set stays as it is, alike for all peers.
	for name, value := range map[string]string{
		"tcp_congestion_control": "reno", // bbr would pace, cubic is not always there
		"ip_local_port_range":    "10240 65000",
		"tcp_tw_reuse":           "1",
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
	return nil
}
