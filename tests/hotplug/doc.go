// Package hotplug plugs devices into a running Debian kernel and asks for them back, and looks for what is left of them in guest and host.
package hotplug
