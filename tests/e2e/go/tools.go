//go:build tools

// Package tools names the programs that are built from modules but not imported, so that go.mod keeps them.
package tools

import _ "github.com/containerd/containerd/v2/cmd/ctr"
