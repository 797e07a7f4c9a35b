package config

import (
	"fmt"
	"strings"
)

// Markdown returns the reference page of all parameters.
func Markdown() string {
	var b strings.Builder
	b.WriteString(docsHead)
	for _, k := range schema {
		fmt.Fprintf(&b, "\n### `%s`\n\n%s\n\n", k.Name, k.Doc)
		def := "none"
		if k.Default != "" {
			def = "`" + k.Default + "`"
		}
		scopes := make([]string, len(k.Scopes))
		for i, s := range k.Scopes {
			scopes[i] = string(s)
		}
		fmt.Fprintf(&b, "| type | default | allowed | set at | example |\n|---|---|---|---|---|\n| %s | %s | %s | %s | `%s` |\n",
			k.Type, def, k.Range, strings.Join(scopes, ", "), k.Example)
	}
	return b.String()
}

const docsHead = `<!-- Generated from config/table.go by "go generate ./config"; do not edit. -->
# Configuration

Parameters are set globally, for an account, for a host or for one VM; the
narrowest wins (global < account < host < vm). They take effect while
everything runs:

` + "```sh" + `
gnomon config set predictionHorizon=10s                # globally
gnomon config set headroom=50% --account acme
gnomon config set quota=cpu=16 priority=80 --account acme
gnomon config set capacity=disk=500MB/s --host node1
gnomon config set limits.floor=memory=512MiB --vm web1
gnomon config get --vm web1                            # what holds, and where it comes from
gnomon config unset limits.floor --vm web1
gnomon config explain web1                             # every layer, and who set it when
gnomon config history                                  # every change, and why
gnomon config rollback 41                              # everything as it was then
gnomon apply -f fleet.yaml                             # as a file says
` + "```" + `

All values given together are checked together, against everything they
affect, before any is stored.

## How values are written

- **duration**: ` + "`500ms`, `10s`, `1h30m`, `15d`, `2w`" + `
- **amounts**: one or more of ` + "`cpu=`, `memory=`, `disk=`, `network=`" + `, joined by commas.
  CPU in cores (` + "`0.5`, `500m`, `2`" + `), memory in bytes (` + "`256MiB`, `1GB`" + `), disk and
  network per second (` + "`1MB/s`, `1MiB/s`" + `, network also ` + "`100Mbit/s`" + `)
- **bytes**: ` + "`512`, `16KiB`, `1MiB`" + `
- **size**: amounts of cpu and memory
- **percent**: ` + "`20%`" + `; **percents**: one for each resource, as in ` + "`cpu=200%,memory=100%`" + `

A resource left out of a value has its default, whatever a wider scope says.

## Parameters
`
