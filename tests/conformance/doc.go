// Package conformance compares berth's devices with those of other machines, as a guest sees them.
package conformance
