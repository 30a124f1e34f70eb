package auth

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// KeyKeep is how long a key that has stopped to sign goes on to verify: until
// the last token it signed is past even its grace.
const KeyKeep = maxLife + MaxGrace + 24*time.Hour

// signer gives the key that signs at a time: of those that do by then, the
// one that began last.
func (k *Keyring) signer(at time.Time) jose.JSONWebKey {
	best := k.keys[0]
	for _, key := range k.keys[1:] {
		if t := k.times[key.KeyID].Signs; !t.After(at) && t.After(k.times[best.KeyID].Signs) {
			best = key
		}
	}
	return best
}

// SignerID gives the id of the key that signs at a time.
func (k *Keyring) SignerID(at time.Time) string { return k.signer(at).KeyID }

// Roll makes a keyring with one key more, which signs from the time signs on:
// late enough that every gateway knows it by then. Keys that nothing lives of
// any more are left out; dropped are their ids.
func (k *Keyring) Roll(now, signs time.Time) (rolled *Keyring, dropped []string, err error) {
	key, err := newTokenKey()
	if err != nil {
		return nil, nil, err
	}
	rolled = &Keyring{times: maps.Clone(k.times)}
	if rolled.times == nil {
		rolled.times = map[string]keyTimes{}
	}
	began := make([]time.Time, 0, len(k.keys))
	for _, old := range k.keys {
		began = append(began, k.times[old.KeyID].Signs)
	}
	slices.SortFunc(began, time.Time.Compare)
	for _, old := range k.keys {
		i := slices.IndexFunc(began, k.times[old.KeyID].Signs.Before) // its successor
		if i >= 0 && began[i].Add(KeyKeep).Before(now) {
			dropped = append(dropped, old.KeyID)
			delete(rolled.times, old.KeyID)
			continue
		}
		rolled.keys = append(rolled.keys, old)
	}
	rolled.keys = append(rolled.keys, key)
	rolled.times[key.KeyID] = keyTimes{Made: now.UTC().Truncate(time.Second), Signs: signs.UTC().Truncate(time.Second)}
	return rolled, dropped, nil
}

// Replace writes the private keys in place of file, whole or not at all, with
// mode 0600.
func (k *Keyring) Replace(file string) error {
	b, err := k.text()
	if err != nil {
		return err
	}
	if err := replaceFile(file, b); err != nil {
		return fmt.Errorf("write token keyring: %w", err)
	}
	return nil
}
