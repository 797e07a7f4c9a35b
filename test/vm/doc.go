// Package vm tests the whole system from outside: the built program, run as an
// operator runs it, on the system's libvirt with real guests. It runs only as
// root with GNOMON_TEST_VM=1, after "make build appliance".
package vm
