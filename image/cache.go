package image

// cacheMode checks the value of -t or -T; what says in the message whose it is.
func cacheMode(mode, what string) (string, error) {
	switch mode {
	case "none", "off":
		return "none", nil
	case "directsync", "writeback", "unsafe", "writethrough":
		return mode, nil
	}
	return "", failure("Invalid %s option: %s", what, mode)
}
