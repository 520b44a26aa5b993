package hmp

import "strings"

// HelpCommand is help: it lists all commands, or says what one does.
func HelpCommand() Command {
	return Command{
		Name: "help|?", Args: []Arg{{Name: "name", Kind: Rest, Optional: true}}, Params: "[cmd]", Help: "show the help",
		Run: func(c *Call) error {
			c.help(c.Text("name"))
			return nil
		},
	}
}

// HelpOn has a command without arguments print the help of name.
func HelpOn(name string) func(*Call) error {
	return func(c *Call) error {
		c.help(name)
		return nil
	}
}

func (c *Call) help(name string) {
	list := c.interpreter.Commands
	words := strings.Fields(name)
	prefix := ""
	for n, w := range words {
		command := find(list, w)
		if command == nil {
			c.Printf("unknown command: '%s'\n", strings.Join(words[:n+1], " "))
			return
		}
		if command.Sub == nil {
			c.describe(prefix, command)
			return
		}
		list, prefix = command.Sub, prefix+w+" "
	}
	for i := range list {
		c.describe(prefix, &list[i])
	}
}

func (c *Call) describe(prefix string, command *Command) {
	c.Printf("%s%s %s -- %s\n", prefix, command.Name, command.Params, command.Help)
}

func find(list []Command, name string) *Command {
	for i := range list {
		if list[i].is(name) {
			return &list[i]
		}
	}
	return nil
}
