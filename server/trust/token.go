package trust

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Kind is what a token is for.
type Kind string

// The kinds of token; each begins the tokens of its kind.
const (
	JoinKind   Kind = "gnj1" // lets one host join
	AccessKind Kind = "gnt1" // is a person or a program
)

// Token is a secret with the fleet it is good for. Its text is
// KIND-ID-SECRET-FLEET.
type Token struct {
	Kind   Kind
	ID     string // not secret
	Secret string
	Fleet  string // fingerprint of the authority
}

// NewToken returns a random token for a fleet.
func NewToken(k Kind, fleet string) Token {
	return Token{Kind: k, ID: strings.ToLower(rand.Text()[:10]), Secret: strings.ToLower(rand.Text()), Fleet: fleet}
}

// Text is what its holder is given. It is the secret: log ID instead.
func (t Token) Text() string {
	return strings.Join([]string{string(t.Kind), t.ID, t.Secret, t.Fleet}, "-")
}

// String hides the secret, so that no log shows it by accident.
func (t Token) String() string { return string(t.Kind) + "-" + t.ID + "-…" }

// Hash is what is stored of a secret. It is random and long, so that no salt
// and no slow hash is needed.
func (t Token) Hash() string {
	sum := sha256.Sum256([]byte(t.Secret))
	return hex.EncodeToString(sum[:])
}

// Matches tells whether the token has the secret of that hash.
func (t Token) Matches(hash string) bool {
	return subtle.ConstantTimeCompare([]byte(t.Hash()), []byte(hash)) == 1
}

var tokenForm = regexp.MustCompile(`^(gn[jt]1)-([a-z2-7]{10})-([a-z2-7]{26})-([0-9a-f]{64})$`)

// ParseToken reads a token's text, which no error repeats.
func ParseToken(text string) (Token, error) {
	m := tokenForm.FindStringSubmatch(text)
	if m == nil {
		return Token{}, errors.New("this is not a token of gnomon's: want one line like gnj1-…, as \"gnomon server token create\" printed it")
	}
	return Token{Kind(m[1]), m[2], m[3], m[4]}, nil
}

// ReadToken reads the one token that r holds, of a kind.
func ReadToken(r io.Reader, k Kind) (Token, error) {
	b, err := io.ReadAll(io.LimitReader(r, 4096))
	if err != nil {
		return Token{}, fmt.Errorf("read token: %w", err)
	}
	t, err := ParseToken(strings.TrimSpace(string(b)))
	if err != nil {
		return Token{}, err
	}
	if t.Kind != k {
		want := map[Kind]string{JoinKind: "one for a host to join with (gnj1-…)", AccessKind: "one of a person or a program (gnt1-…)"}
		return Token{}, fmt.Errorf("token %s is of another kind: want %s", t, want[k])
	}
	return t, nil
}
