package monitor

import "berth/qmp"

// nicStats is what a network card has moved since it was made; QEMU does not tell.
type nicStats struct {
	ID        string `json:"id"`
	MAC       string `json:"mac"`
	Type      string `json:"type"`
	RxBytes   uint64 `json:"rx-bytes"` // towards the guest
	RxPackets uint64 `json:"rx-packets"`
	RxDropped uint64 `json:"rx-dropped"`
	TxBytes   uint64 `json:"tx-bytes"`
	TxPackets uint64 `json:"tx-packets"`
	TxDropped uint64 `json:"tx-dropped"`
}

// queryNICs is the command of it. Its name is berth's own, in the way of QEMU's
// documentation for such (docs/interop/qmp-spec, downstream extension).
func (m *Monitor) queryNICs() qmp.Command {
	return qmp.Define("__berth_query-nics", "What the network cards have moved.", func(*qmp.Call, *qmp.None) (list []nicStats, err error) {
		for _, n := range m.vm.NICs() {
			s := n.Stats()
			list = append(list, nicStats{
				ID: n.Spec.ID, MAC: n.Spec.MAC, Type: n.Spec.Type,
				RxBytes: s.ReceivedBytes, RxPackets: s.ReceivedFrames, RxDropped: s.ReceiveDropped,
				TxBytes: s.TransmittedBytes, TxPackets: s.TransmittedFrames, TxDropped: s.TransmitDropped,
			})
		}
		return list, nil
	})
}
