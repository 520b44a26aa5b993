package spec

// UserNet is what a NIC of type "user" has besides.
type UserNet struct{}

func (u *UserNet) check() error { return nil }
