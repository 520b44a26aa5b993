package image

// missing stands for a command that is not there.
type missing struct{}

func (*missing) options(*call) []option { return nil }

func (*missing) run(*call, []string) error { return failure("this command is not supported") }
