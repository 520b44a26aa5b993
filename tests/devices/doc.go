// Package devices has devices in a running Debian kernel come and go, and work, and looks for what is left of them in guest and host.
package devices
