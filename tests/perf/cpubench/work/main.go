// Command work is what cpubench's guest computes in Go: each of its jobs does a known amount of work and prints the answer.
package main

import (
	"fmt"
	"os"
	"strconv"
)

var jobs = map[string]func(n int) string{
	"integer":   func(n int) string { return fmt.Sprint(integer(n)) },
	"states":    func(n int) string { return fmt.Sprint(states(n)) },
	"sort":      func(n int) string { return fmt.Sprint(sorted(n)) },
	"hash":      func(n int) string { return fmt.Sprint(hash(n)) },
	"sha256":    sum256,
	"chase":     func(n int) string { return fmt.Sprint(chase(n)) },
	"histogram": func(n int) string { return fmt.Sprint(histogram(n)) },
	"signals":   signals,
	"text":      text,
}

func main() {
	if len(os.Args) == 3 {
		n, err := strconv.Atoi(os.Args[2])
		if job := jobs[os.Args[1]]; job != nil && err == nil && n > 0 {
			fmt.Println(job(n))
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: work JOB N")
	os.Exit(2)
}
