package main

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"berth/doctor"
)

const doctorLong = `Look at this host: KVM and the processor, memory, devices, isolation, limits.
Each check is ok, warn (works, but not as well or as safely as it could) or fail,
and says what that means for guests and what to do about it. The last line says
which engine berth run takes. Root can look at more than other users.

Nothing is changed. The first run after a boot runs a tiny guest on /dev/kvm.

Exit status: 0, whatever is found, for guests always run, if only on the soft
engine; with --json, "accelerator" and each check's "status" are for programs.`

func doctorCommand(stdout io.Writer) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, what is slow on it, and what to do about it",
		Long:  doctorLong,
		Args:  cobra.NoArgs,

		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			report := doctor.Run(doctor.Options{Log: slog.New(slog.DiscardHandler)})
			if asJSON {
				return report.JSON(stdout)
			}
			return report.Human(stdout)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return c
}
