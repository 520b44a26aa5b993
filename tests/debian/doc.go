// Package debian boots a whole Debian 12, puts it through its paces and shuts it down.
package debian
