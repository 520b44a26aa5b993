package main

import (
	"io"

	"github.com/spf13/cobra"
)

func doctorCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{Use: "doctor", Hidden: true}
}
