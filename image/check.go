package image

import (
	"errors"
	"syscall"

	"berth/block"
	"berth/block/formats"
)

// Exit statuses of check beyond those of every command.
const (
	checkCorrupt     exit = 2
	checkLeaks       exit = 3
	checkUnsupported exit = 63
)

type check struct {
	source
	output, cache string
	fix           block.Fix
	repair, quiet bool
}

func newCheck() action { return &check{output: "human", cache: "writeback"} }

func (a *check) options(c *call) []option {
	return []option{
		a.formatOption("format"),
		{short: 'r', long: "repair", set: a.setRepair},
		word(0, "output", &a.output), c.objectOption(), mark(0, "image-opts", &a.imageOpts), mark('U', "force-share", &a.share),
		word('T', "", &a.cache), mark('q', "", &a.quiet),
	}
}

func (a *check) setRepair(what string) error {
	a.repair = true
	switch what {
	case "leaks":
		a.fix = block.FixLeaks
	case "all":
		a.fix = block.FixAll
	default:
		return misuse("Unknown option value for -r (expecting 'leaks' or 'all'): %s", what)
	}
	return nil
}

func (a *check) run(c *call, operands []string) (err error) {
	if a.file, err = oneImage(operands); err != nil {
		return err
	}
	json, err := outputJSON(a.output)
	if err != nil {
		return err
	}
	cache, err := cacheMode(a.cache, "source cache")
	if err != nil {
		return err
	}
	n, err := c.open(a.source, formats.Options{ReadOnly: !a.repair, Check: true, Cache: cache})
	if err != nil {
		return err
	}
	checker, ok := n.Image.(block.Checker)
	if !ok {
		c.report("This image format does not support checks")
		return closing(n, checkUnsupported)
	}
	return closing(n, a.check(c, n, checker, json))
}

func (a *check) check(c *call, n *formats.Node, checker block.Checker, json bool) error {
	report := func(line string) { c.plain("%s", line) }
	r, err := checker.Check(a.fix, report)
	if err == nil && r.CorruptionsFixed+r.LeaksFixed != 0 {
		if !json && !a.quiet {
			c.printf("The following inconsistencies were found and repaired:\n\n    %d leaked clusters\n    %d corruptions\n\n"+
				"Double checking the fixed image now...\n", r.LeaksFixed, r.CorruptionsFixed)
			_ = c.stdout.Flush() // Main reports what stdout does not take
		}
		leaks, corruptions := r.LeaksFixed, r.CorruptionsFixed
		r, err = checker.Check(0, report)
		r.LeaksFixed, r.CorruptionsFixed = leaks, corruptions
	}
	if errors.Is(err, syscall.ENOTSUP) {
		c.report("This image format does not support checks")
		return checkUnsupported
	}
	if err != nil {
		return failure("Check failed: %s", strerror(errno(err)))
	}
	switch {
	case a.quiet:
	case json:
		printJSON(c, checkObject(a.file, n.Driver, r))
	default:
		printCheck(c, r)
	}
	switch {
	case r.CheckErrors != 0:
		return failure("Check failed")
	case r.Corruptions != 0:
		return checkCorrupt
	case r.Leaks != 0:
		return checkLeaks
	}
	return nil
}

// checkObject is what was found as JSON; counts that are 0 are left out.
func checkObject(file, format string, r block.CheckResult) []block.Field {
	o := []block.Field{{Name: "filename", Value: file}, {Name: "format", Value: format}, {Name: "check-errors", Value: r.CheckErrors}}
	for _, f := range []struct {
		name string
		n    int64
	}{
		{"image-end-offset", r.ImageEnd}, {"corruptions", r.Corruptions}, {"leaks", r.Leaks},
		{"corruptions-fixed", r.CorruptionsFixed}, {"leaks-fixed", r.LeaksFixed}, {"total-clusters", r.Total},
		{"allocated-clusters", r.Allocated}, {"fragmented-clusters", r.Fragmented}, {"compressed-clusters", r.Compressed},
	} {
		if f.n != 0 {
			o = append(o, block.Field{Name: f.name, Value: f.n})
		}
	}
	return o
}

// printCheck is what was found as people read it.
func printCheck(c *call, r block.CheckResult) {
	if r.Corruptions == 0 && r.Leaks == 0 && r.CheckErrors == 0 {
		c.printf("No errors were found on the image.\n")
	}
	if r.Corruptions != 0 {
		c.printf("\n%d errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n", r.Corruptions)
	}
	if r.Leaks != 0 {
		c.printf("\n%d leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n", r.Leaks)
	}
	if r.CheckErrors != 0 {
		c.printf("\n%d internal errors have occurred during the check.\n", r.CheckErrors)
	}
	if r.Total != 0 && r.Allocated != 0 {
		c.printf("%d/%d = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n", r.Allocated, r.Total,
			float64(r.Allocated)*100/float64(r.Total), float64(r.Fragmented)*100/float64(r.Allocated), float64(r.Compressed)*100/float64(r.Allocated))
	}
	if r.ImageEnd != 0 {
		c.printf("Image end offset: %d\n", r.ImageEnd)
	}
}
