// Package agent is the client on a managed device: it registers, fetches
// policy, obeys it and reports, all through a gateway on the internet.
//
// One pass of it, [Agent.Run] makes one after the other:
//
//  1. register: a key of its own, a self-signed certificate, and the proof the
//     gateway wants, a client certificate or a registration token; the answer
//     is the device's id and, without a certificate, a device token (months)
//  2. session: the device token and a signature by the device's key open the
//     token service; the answer is a session token (hours), renewed before it
//     ends and when it is refused. With a certificate there are no tokens.
//  3. policy: which policies apply, and the bodies of those not obeyed yet,
//     each checked against its digest
//  4. obey: of a content deployment, ask where the package is, take the
//     manifest from the gateway with the content token of that answer, and
//     download the files straight from the store
//  5. report: state messages, and a discovery record once a day
//
// Beside the passes a request waits at the management point, whose answer
// tells what to do now: to get policy is the next pass at once.
//
// Whatever has to outlive the process lies in the state folder, readable by
// its owner only: the key, the tokens, what was obeyed, and the reports that
// no one has acknowledged yet.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/web"
)

// An Agent is the client on one device. Run it once.
type Agent struct {
	cfg   Config
	link  *link
	files *content.Downloader
	store *stateStore

	identity identity
	state    state
	greeted  bool     // a discovery record was made since the start
	report   reporter // what /status tells
	notify   *notifier
}

// New checks c, makes the state folder where it is missing, and reads it. It
// connects to nothing.
func New(c Config) (*Agent, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	c = c.preferred()
	if c.SiteCertificate != "" {
		if _, err := siteKeyFile(c.SiteCertificate); err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
	}
	a := &Agent{cfg: c}
	if a.link, err = newLink(c); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a.files, err = content.NewDownloader(content.DownloaderConfig{Parallel: c.Parallel, Client: a.link.store, Log: c.Log})
	if err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if a.store, err = openState(c.StateDir); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if a.state, err = a.store.load(); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	if a.notify, err = newNotifier(c, a.link, a.store, &a.report); err != nil {
		return nil, fmt.Errorf("agent: %w", err)
	}
	a.report.start(c, a.state)
	return a, nil
}

// Run makes one pass after the other until ctx ends, and then returns nil; of
// Config.Once, it returns after the first pass what went wrong in it, which
// is ctx's error where ctx ended in the middle.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var status sync.WaitGroup
	defer status.Wait()
	defer a.link.close()
	defer cancel()
	if a.cfg.Status != "" {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", a.cfg.Status)
		if err != nil {
			return fmt.Errorf("agent: listen for status: %w", err)
		}
		srv := &http.Server{Handler: a.report.handler()}
		status.Go(func() {
			if err := web.Serve(ctx, srv, ln, time.Second); err != nil {
				a.cfg.Log.Warn("status ended", "err", err)
			}
		})
	}
	defer a.listen(ctx)()
	defer cancel()
	for failed := 0; ; {
		err := a.pass(ctx)
		switch {
		case ctx.Err() != nil && a.cfg.Once && err != nil:
			return fmt.Errorf("agent: stopped before the pass was done: %w", ctx.Err())
		case ctx.Err() != nil:
			return nil
		}
		a.report.passed(a.cfg.Now(), err)
		if a.cfg.Once {
			return err
		}
		wait := jitter(a.cfg.PolicyInterval)
		if failed++; err == nil {
			failed = 0
		} else {
			wait = backoff(failed, time.Second, min(a.cfg.PolicyInterval, 5*time.Minute))
			a.cfg.Log.Warn("pass failed", "err", err, "again_in", wait.Round(time.Millisecond))
		}
		if !a.idle(ctx, wait) {
			return nil
		}
	}
}

// pass does all that is due once. A failure in one policy does not keep the
// others from being obeyed, or reports from being sent.
func (a *Agent) pass(ctx context.Context) error {
	if err := a.prepareIdentity(); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if err := a.ensureRegistered(ctx); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.tellNotifier()
	errs := []error{a.applyPolicies(ctx)}
	if ctx.Err() == nil {
		errs = append(errs, a.queueDiscovery(), a.sendReports(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	a.cfg.Log.Info("pass done", slog.String("device", string(a.state.Device)), slog.Int("policies", len(a.state.Policies)))
	return nil
}

// save writes the state and shows it in the status.
func (a *Agent) save() error {
	if err := a.store.save(a.state); err != nil {
		return err
	}
	a.report.show(a.state)
	a.tellNotifier()
	return nil
}

// jitter spreads devices that were switched on together over a fifth of d.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// backoff gives a wait between 0 and base doubled for every failure, up to
// most: full jitter, so that devices cut off together do not return together.
func backoff(failures int, base, most time.Duration) time.Duration {
	return rand.N(max(min(base<<min(failures-1, 20), most), 1))
}

// sleep waits and says whether ctx is still there after it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
