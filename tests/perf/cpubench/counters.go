package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
)

// counters are what berth says at the end that its vCPU did.
type counters struct{ instructions, translated, exits float64 }

func (c counters) less(o counters) counters {
	return counters{c.instructions - o.instructions, c.translated - o.translated, c.exits - o.exits}
}

// share is how much of all instructions ran translated, in percent.
func (c counters) share() float64 { return 100 * c.translated / c.instructions }

func (c counters) String() string {
	if c.exits == 0 {
		return "nothing was translated"
	}
	return fmt.Sprintf("%.2f%% of %.2f G instructions ran translated, %.0f between two exits", c.share(), c.instructions/1e9, c.translated/c.exits)
}

var exitCount = regexp.MustCompile(`[a-z]+:(\d+)`)

// counts reads the log of berth run -v.
func counts(log string) counters {
	number := func(key string) float64 {
		m := regexp.MustCompile(` ` + key + `=(\d+)`).FindStringSubmatch(log)
		if m == nil {
			return 0
		}
		n, _ := strconv.ParseFloat(m[1], 64) // digits
		return n
	}
	c := counters{instructions: number("instructions"), translated: number("translated")}
	for _, m := range exitCount.FindAllStringSubmatch(regexp.MustCompile(`map\[.*?\]`).FindString(log), -1) {
		n, _ := strconv.ParseFloat(m[1], 64) // digits
		c.exits += n
	}
	return c
}

// shares boots berth with each row alone, and with none, whose counts it takes off.
func shares(o options, results []*result, berth []string) error {
	fmt.Fprintln(os.Stderr, "how much of each row runs translated")
	count := func(only string) (counters, error) {
		args := slices.Clone(berth)
		args[len(args)-1] += " cpubench.only=" + only // the kernel's command line
		b, err := bootAll(args, o.limit)
		if err != nil {
			return counters{}, fmt.Errorf("berth with %s: %w", only, err)
		}
		return counts(b.p.Errors()), nil
	}
	none, err := count("none")
	if err != nil {
		return err
	}
	for _, r := range results {
		c, err := count(r.id())
		if err != nil {
			return err
		}
		r.counted = c.less(none)
	}
	return nil
}
