package spec

// CloudInit is what cloud-init in the guest is told, by a disk that holds it; the
// zero CloudInit is no such disk.
type CloudInit struct {
	UserData      string `json:"userData,omitempty" path:"yes" implied:"yes"`
	MetaData      string `json:"metaData,omitempty" path:"yes"`
	NetworkConfig string `json:"networkConfig,omitempty" path:"yes"`
	// SSHKey is a file of public keys for the guest's default user.
	SSHKey string `json:"sshKey,omitempty" path:"yes"`
}

// Set reads the value of --cloud-init.
func (c *CloudInit) Set(s string) error {
	*c = CloudInit{}
	return setKeys(s, c)
}
