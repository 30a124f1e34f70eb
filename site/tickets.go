package site

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/opencmg/cmg"
)

// Session tickets: a new secret every ticketTurn, known to all for ticketLead
// before tickets are made with it, and taken for ticketKeep after the next
// one's turn. A ticket is good for a day and a half at most.
const (
	ticketTurn = 12 * time.Hour
	ticketLead = 15 * time.Minute
	ticketKeep = 24 * time.Hour
)

var (
	qTickets       = query(`SELECT id, secret, begins, ends FROM ticket_secrets ORDER BY id`)
	qInsertTicket  = query(`INSERT INTO ticket_secrets (id, secret, begins, ends) VALUES (?, ?, ?, ?)`)
	qDeleteTickets = query(`DELETE FROM ticket_secrets WHERE ends <= ?`)
)

// TicketSecrets gives the secrets of session tickets that hold now, and makes
// a new one where its turn has come. All who ask get the same.
func (s *Site) TicketSecrets(ctx context.Context) (t cmg.TicketSecrets, err error) {
	now := s.now()
	if t.Secrets, err = list(ctx, s.read, scanTicket, qTickets); err != nil {
		return t, err
	}
	if due(t.Secrets, now) {
		if err = s.update(ctx, turnTickets); err != nil {
			return t, err
		}
		if t.Secrets, err = list(ctx, s.read, scanTicket, qTickets); err != nil {
			return t, err
		}
	}
	return t, nil
}

// due says that a secret is to be made, or one is to go.
func due(all []cmg.TicketSecret, now time.Time) bool {
	newest := time.Time{}
	for _, k := range all {
		if !now.Before(k.Until) {
			return true
		}
		if k.From.After(newest) {
			newest = k.From
		}
	}
	return now.After(newest.Add(ticketTurn - ticketLead))
}

func turnTickets(tx *tx) error {
	if err := tx.exec(qDeleteTickets, micros(tx.now)); err != nil {
		return err
	}
	all, err := list(tx.ctx, tx.tx, scanTicket, qTickets)
	if err != nil || !due(all, tx.now) {
		return err // somebody else was first
	}
	from := tx.now.Add(ticketLead)
	if len(all) == 0 {
		from = tx.now
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	return tx.exec(qInsertTicket, cmg.NewGUID(), secret, micros(from), micros(from.Add(ticketTurn+ticketLead+ticketKeep)))
}

func scanTicket(scan func(...any) error) (k cmg.TicketSecret, err error) {
	var from, until int64
	var secret []byte
	err = scan(&k.ID, &secret, &from, &until)
	k.Secret, k.From, k.Until = secret, fromMicros(from), fromMicros(until)
	return k, err
}
