package access

import (
	"errors"

	"github.com/gnomon-vm/gnomon/wire/serverpb/serverpbconnect"
)

// Rule says who may call a method.
type Rule struct {
	Role     Role // at least; None for nobody by role
	Accounts bool // those that see one account only, too
	Hosts    bool // hosts with a certificate, too
	Anyone   bool // those nobody knows, too

	// Changes marks what goes into the log of changes.
	Changes bool
}

// rules has every method of every service; a test holds them against each
// other. A method that is not here is refused to all.
var rules = map[string]Rule{
	serverpbconnect.ManagementServiceCreateAccountProcedure:     {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceGetAccountProcedure:        {Role: Viewer, Accounts: true},
	serverpbconnect.ManagementServiceListAccountsProcedure:      {Role: Viewer, Accounts: true},
	serverpbconnect.ManagementServiceUpdateAccountProcedure:     {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceDeleteAccountProcedure:     {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceGetHostProcedure:           {Role: Viewer},
	serverpbconnect.ManagementServiceListHostsProcedure:         {Role: Viewer},
	serverpbconnect.ManagementServiceUpdateHostProcedure:        {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceDeleteHostProcedure:        {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceDeployVMProcedure:          {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceMoveVMProcedure:            {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceAdviseProcedure:            {Role: Viewer},
	serverpbconnect.ManagementServiceListAssociationsProcedure:  {Role: Viewer, Accounts: true},
	serverpbconnect.ManagementServiceGetConfigProcedure:         {Role: Viewer, Accounts: true},
	serverpbconnect.ManagementServiceExplainConfigProcedure:     {Role: Viewer, Accounts: true},
	serverpbconnect.ManagementServiceSetConfigProcedure:         {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceApplyConfigProcedure:       {Role: Operator, Changes: true},
	serverpbconnect.ManagementServiceListConfigChangesProcedure: {Role: Viewer},
	serverpbconnect.ManagementServiceCompareConfigProcedure:     {Role: Viewer},
	serverpbconnect.ManagementServiceRollbackConfigProcedure:    {Role: Operator, Changes: true},

	serverpbconnect.HostLinkServiceWatchProcedure:  {Role: Admin, Hosts: true},
	serverpbconnect.HostLinkServiceReportProcedure: {Role: Admin, Hosts: true},
	serverpbconnect.HostLinkServiceSettleProcedure: {Role: Admin, Hosts: true},

	serverpbconnect.AccessServiceCreateJoinTokenProcedure: {Role: Admin, Changes: true},
	serverpbconnect.AccessServiceListJoinTokensProcedure:  {Role: Admin},
	serverpbconnect.AccessServiceDeleteJoinTokenProcedure: {Role: Admin, Changes: true},
	serverpbconnect.AccessServiceRevokeHostProcedure:      {Role: Admin, Changes: true},
	serverpbconnect.AccessServiceCreateTokenProcedure:     {Role: Admin, Changes: true},
	serverpbconnect.AccessServiceListTokensProcedure:      {Role: Admin},
	serverpbconnect.AccessServiceDeleteTokenProcedure:     {Role: Admin, Changes: true},
	serverpbconnect.AccessServiceListChangesProcedure:     {Role: Admin},
	serverpbconnect.AccessServiceWhoAmIProcedure:          {Role: Viewer, Accounts: true, Hosts: true},
	serverpbconnect.AccessServiceDescribeLoginProcedure:   {Anyone: true},

	serverpbconnect.JoinServiceJoinProcedure:  {Anyone: true, Changes: true},
	serverpbconnect.JoinServiceRenewProcedure: {Hosts: true},
}

// RuleOf returns the rule for a method, by its path.
func RuleOf(procedure string) (Rule, bool) {
	r, ok := rules[procedure]
	return r, ok
}

// ErrUnknown is returned where a rule wants to know who calls.
var ErrUnknown = errors.New("the server does not know you: log in (gnomon login), call with a token (GNOMON_TOKEN_FILE), as a host that joined, or through the server's Unix socket")

// ErrDenied is returned to callers that are known and may not.
type ErrDenied struct {
	Caller Caller
	Want   Role
}

// Error implements error.
func (e ErrDenied) Error() string {
	switch {
	case e.Want == None:
		return e.Caller.Name + " may not do this: it is for hosts"
	case e.Caller.Host != "":
		return e.Caller.Name + " may not do this: it is for people with the role " + e.Want.String()
	case e.Caller.Account != "":
		return e.Caller.Name + " sees the account " + e.Caller.Account + " alone, and may not do this"
	}
	return e.Caller.Name + " has the role " + e.Caller.Role.String() + " and may not do this: it takes " + e.Want.String()
}

// Check returns nil if the caller may, else ErrUnknown or an ErrDenied.
func (r Rule) Check(c Caller) error {
	switch {
	case r.Anyone:
		return nil
	case c == Caller{}:
		return ErrUnknown
	case c.Host != "":
		if r.Hosts {
			return nil
		}
	case r.Role == None || c.Role < r.Role:
	case c.Account == "" || r.Accounts:
		return nil
	}
	return ErrDenied{c, r.Role}
}
