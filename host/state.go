package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/gnomon-vm/gnomon"
	"github.com/gnomon-vm/gnomon/hypervisor"
	"github.com/google/renameio/v2"
)

// stateFile is what survives a restart. It is written whole and atomically
// before the change it guards is made: the limits found on a VM are on disk
// before the first of them is touched.
type stateFile struct {
	path string
	data stateData
}

type stateData struct {
	Originals map[gnomon.VMID]original `json:"originals"`
	Enrolled  map[gnomon.VMID]bool     `json:"enrolled"` // true taken in, false left alone, by explicit request
	Desired   desired                  `json:"desired"`

	// Expected are VMs on their way here from other hosts.
	Expected map[gnomon.VMID]expected `json:"expected,omitempty"`
}

// expected is a VM on its way, with its limits as they were before gnomon.
type expected struct {
	original
	Until time.Time `json:"until"` // when it will not come any more
}

// original is a VM's limits as they were before gnomon, or as somebody else set
// them since, where that was adopted.
type original struct {
	Name string `json:"name"`
	hypervisor.Original
	Adopted gnomon.ResourceSet `json:"adopted,omitempty"`
}

func openState(path string) (*stateFile, error) {
	s := &stateFile{path: path}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read state: %w", err)
	default:
		if err := json.Unmarshal(b, &s.data); err != nil {
			return nil, fmt.Errorf("state file %s is damaged (%w): restore it from a copy, or remove it and set the limits of running VMs by hand", path, err)
		}
	}
	if s.data.Originals == nil {
		s.data.Originals = map[gnomon.VMID]original{}
	}
	if s.data.Expected == nil {
		s.data.Expected = map[gnomon.VMID]expected{}
	}
	if s.data.Enrolled == nil {
		s.data.Enrolled = map[gnomon.VMID]bool{}
	}
	return s, nil
}

func (s *stateFile) save() error {
	b, err := json.MarshalIndent(s.data, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	dir := filepath.Dir(s.path)
	if err := renameio.WriteFile(s.path, b, 0o600, renameio.WithTempDir(dir)); err != nil {
		return fmt.Errorf("save state in %s: %w", dir, err)
	}
	return nil
}

// original returns the limits to restore for a machine: those kept from before
// a restart, or that came with it from another host, or that it carries itself,
// else those found now. They are kept first.
func (s *stateFile) original(m hypervisor.Machine) (hypervisor.Original, error) {
	if o, ok := s.data.Originals[m.ID]; ok {
		return o.Original, nil
	}
	o := original{Name: m.Name, Original: m.Original}
	if m.Own != nil {
		o.Original = *m.Own
	}
	due, comes := s.data.Expected[m.ID]
	if comes { // the limits it has are those that gnomon set elsewhere
		o.Original = due.Original
		delete(s.data.Expected, m.ID)
	}
	s.data.Originals[m.ID] = o
	if err := s.save(); err != nil {
		delete(s.data.Originals, m.ID)
		if comes {
			s.data.Expected[m.ID] = due
		}
		return hypervisor.Original{}, err
	}
	return o.Original, nil
}

// forget drops the limits of a VM that ended or was given back.
func (s *stateFile) forget(id gnomon.VMID) error {
	if _, ok := s.data.Originals[id]; !ok {
		return nil
	}
	delete(s.data.Originals, id)
	return s.save()
}

// adopt notes that a limit which somebody else set is the VM's own from now on.
func (s *stateFile) adopt(id gnomon.VMID, r gnomon.Resource, limit int64) error {
	o := s.data.Originals[id]
	o.Limits[r], o.Adopted = limit, o.Adopted.With(r)
	s.data.Originals[id] = o
	return s.save()
}

// disown has the limits that were adopted be set by gnomon again.
func (s *stateFile) disown(id gnomon.VMID) error {
	o := s.data.Originals[id]
	if o.Adopted == 0 {
		return nil
	}
	o.Adopted = 0
	s.data.Originals[id] = o
	return s.save()
}

// expect notes a VM that comes from another host: it is to be taken in, and has
// limits of its own. Those that have not come by now are forgotten.
func (s *stateFile) expect(id gnomon.VMID, due expected, now time.Time) error {
	maps.DeleteFunc(s.data.Expected, func(_ gnomon.VMID, e expected) bool { return now.After(e.Until) })
	in, explicit := s.data.Enrolled[id]
	s.data.Enrolled[id], s.data.Expected[id] = true, due
	err := s.save()
	if err != nil {
		delete(s.data.Expected, id)
		if s.data.Enrolled[id] = in; !explicit {
			delete(s.data.Enrolled, id)
		}
	}
	return err
}

func (s *stateFile) enroll(id gnomon.VMID, in bool) error {
	before, had := s.data.Enrolled[id]
	s.data.Enrolled[id] = in
	if err := s.save(); err != nil {
		delete(s.data.Enrolled, id)
		if had {
			s.data.Enrolled[id] = before
		}
		return err
	}
	return nil
}

// unenroll drops the explicit choice for a VM.
func (s *stateFile) unenroll(id gnomon.VMID) error {
	delete(s.data.Enrolled, id)
	return s.save()
}

// enrolled returns the explicit choice for a VM, if there is one.
func (s *stateFile) enrolled(id gnomon.VMID) (in, explicit bool) {
	in, explicit = s.data.Enrolled[id]
	return in, explicit
}

func (s *stateFile) desired() desired { return s.data.Desired }

func (s *stateFile) setDesired(d desired) error {
	s.data.Desired = d
	return s.save()
}
