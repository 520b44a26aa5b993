package main

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"berth/doctor"
)

func doctorCommand(stdout io.Writer) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do, what is slow on it, and what to do about it",
		Args:  cobra.NoArgs,
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
