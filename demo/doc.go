// Package demo runs gnomon as an operator would and shows what it is worth: two
// VMs of one definition under one workload, one with a shadow and one resized
// by the standard path alone, measured side by side. It is a client: all that
// it knows of gnomon it learns through the public APIs.
package demo
