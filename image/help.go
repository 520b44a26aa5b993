package image

import (
	_ "embed"
	"fmt"
	"os"
	"slices"
	"strings"

	"berth/block"
	"berth/block/formats"
)

// version is that of the qemu-img whose commands and texts these are; what reads it decides by it.
const version = "7.2.22"

//go:embed help.txt
var helpText string

// qemuFormats are the formats and protocols of Debian's qemu-img, as its help lists
// them. Those that berth has not are refused by name.
const qemuFormats = "blkdebug blklogwrites blkverify bochs cloop compress copy-before-write copy-on-read dmg file ftp ftps gluster host_cdrom host_device http https iscsi iser luks nbd nfs null-aio null-co nvme parallels preallocate qcow qcow2 qed quorum raw rbd replication snapshot-access ssh throttle vdi vhdx vmdk vpc vvfat"

// own are the drivers among them that berth has.
func own() []string {
	names := []string{"file", "host_device"}
	for _, f := range formats.All() {
		names = append(names, f.Name)
	}
	return names
}

func (c *call) versionText() {
	c.printf("%s version %s (berth)\n", c.name, version)
	c.printf("The commands and texts of QEMU's disk image utility\n")
}

// showVersion is --version.
func (c *call) showVersion() error {
	c.versionText()
	return done
}

// help is --help.
func (c *call) help() error {
	c.versionText()
	c.printf("usage: %s [standard options] command [command options]\n", c.name)
	c.printf("QEMU disk image utility\n\n")
	c.printf("    '-h', '--help'       display this help and exit\n")
	c.printf("    '-V', '--version'    output version information and exit\n")
	c.printf("    '-T', '--trace'      [[enable=]<pattern>][,events=<file>][,file=<file>]\n")
	c.printf("                         specify tracing options\n\nCommand syntax:\n")
	for _, cmd := range commands() {
		c.printf("  %s %s\n", cmd.name, cmd.usage)
	}
	c.printf("\n%s", helpText)
	if c.name != "qemu-img" {
		have := own()
		others := slices.DeleteFunc(strings.Fields(qemuFormats), func(name string) bool { return slices.Contains(have, name) })
		c.printf("Supported formats and protocols: %s\nRefused by name: %s\n", strings.Join(have, " "), strings.Join(others, " "))
		return done
	}
	c.printf("Supported formats: %s\n\n", qemuFormats)
	c.printf("See <https://qemu.org/contribute/report-a-bug> for how to report bugs.\n")
	c.printf("More information on the QEMU project at <https://qemu.org>.\n")
	return done
}

// trace accepts what qemu-img's -T does, and traces nothing: there are no events here, as it tells who asks.
func (c *call) trace(value string) error {
	l := optionList{known: []block.Option{{Name: "enable"}, {Name: "events"}, {Name: "file"}}}
	if err := l.parse(value, "enable", c.warnFlag); err != nil {
		return err
	}
	event, ok := l.get("enable")
	if ok && isHelp(event) {
		c.plain("%s has no trace events", c.name)
		return done
	}
	c.warnEvent("", event)
	name, ok := l.get("events")
	if !ok {
		return nil
	}
	list, err := os.ReadFile(name)
	if err != nil {
		c.plain("%s:%s: %s", c.name, name, strerror(errno(err)))
		return failed
	}
	for n, line := range strings.Split(string(list), "\n") {
		if !strings.HasPrefix(line, "#") {
			c.warnEvent(fmt.Sprintf(":%s:%d", name, n+1), line)
		}
	}
	return nil
}

// warnEvent says that there is no such event, which was named at that place. Patterns may match none.
func (c *call) warnEvent(place, event string) {
	if event = strings.TrimPrefix(event, "-"); event != "" && !strings.ContainsAny(event, "*?") {
		c.plain("%s%s: warning: trace event '%s' does not exist", c.name, place, event)
	}
}
