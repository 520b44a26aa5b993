package monitor

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"berth/machine"
	"berth/monitor/elfcore"
	"berth/monitor/inspect"
	"berth/qmp"
	"berth/x86"
)

type (
	saveArguments struct {
		Address int64  `json:"val"`
		Size    int64  `json:"size"`
		File    string `json:"filename"`
	}
	dumpArguments struct {
		Paging   bool       `json:"paging"`
		Protocol string     `json:"protocol"`
		Detach   *bool      `json:"detach"`
		Begin    *int64     `json:"begin"`
		Length   *int64     `json:"length"`
		Format   dumpFormat `json:"format,omitempty"`
	}
	dumpStatus string
	dumpFormat string
	// dumpInfo is QEMU's DumpQueryResult.
	dumpInfo struct {
		Status    dumpStatus `json:"status"`
		Completed int64      `json:"completed"`
		Total     int64      `json:"total"`
	}
	dumpFormats struct {
		Formats []dumpFormat `json:"formats"`
	}
	dumpCompleted struct {
		Result dumpInfo `json:"result"`
		Error  string   `json:"error,omitempty"`
	}
)

// Values implements qmp.Enum.
func (dumpStatus) Values() []string { return []string{"none", "active", "completed", "failed"} }

// Values implements qmp.Enum.
func (dumpFormat) Values() []string {
	return []string{"elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp"}
}

// dump is the latest dump of the guest's memory.
type dump struct {
	mu   sync.Mutex
	info dumpInfo
}

func (d *dump) get() dumpInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.info
}

func (d *dump) set(status dumpStatus, completed, total int64) {
	d.mu.Lock()
	d.info = dumpInfo{status, completed, total}
	d.mu.Unlock()
}

// errDumping is the answer to whoever must wait for a dump.
var errDumping = errors.New("There is a dump in process, please wait.")

// dumpCommands are those that save the guest's memory.
func (m *Monitor) dumpCommands() []qmp.Command {
	type none = qmp.None
	type memsave struct {
		saveArguments
		CPU *int64 `json:"cpu-index"`
	}
	return []qmp.Command{
		qmp.Define("memsave", "Saves a run of a vCPU's virtual memory to a file.", func(_ *qmp.Call, a *memsave) (none, error) {
			var s x86.State
			cpu := int64(0)
			if a.CPU != nil {
				cpu = *a.CPU
			}
			if cpu < 0 || cpu >= int64(len(m.vm.CPUs())) {
				return none{}, fmt.Errorf("Parameter 'cpu-index' expects a CPU number")
			}
			if err := m.state(int(cpu), &s); err != nil {
				return none{}, err
			}
			return none{}, m.save(a.saveArguments, func(addr uint64, p []byte) error {
				if m.virtual(&s)(addr, p) != nil {
					return fmt.Errorf("Invalid addr 0x%016x/size %d specified", addr, a.Size)
				}
				return nil
			})
		}),
		qmp.Define("pmemsave", "Saves a run of guest-physical memory to a file; what is not there is saved as zeros.", func(_ *qmp.Call, a *saveArguments) (none, error) {
			return none{}, m.save(*a, func(addr uint64, p []byte) error {
				clear(p)
				if m.vm.ReadPhysical(addr, p) != nil {
					clear(p)
				}
				return nil
			})
		}),
		qmp.Define("dump-guest-memory", "Writes an ELF core of the guest's memory and vCPUs, which halt meanwhile.", m.dumpMemory),
		qmp.Define("query-dump", "What the latest dump of the guest's memory is doing.", func(*qmp.Call, *none) (dumpInfo, error) {
			return m.dump.get(), nil
		}),
		qmp.Define("query-dump-guest-memory-capability", "The formats that a dump may have.", func(*qmp.Call, *none) (dumpFormats, error) {
			return dumpFormats{[]dumpFormat{"elf"}}, nil
		}),
	}
}

// save writes memory to a file, a page at a time.
func (m *Monitor) save(a saveArguments, read inspect.ReadFunc) (err error) {
	f, err := create(a.File)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	page := make([]byte, 4096)
	addr := uint64(a.Address)
	for left := a.Size; left > 0; {
		p := page[:min(int64(len(page))-int64(addr&4095), left)]
		if err := read(addr, p); err != nil {
			return err
		}
		if _, err := f.Write(p); err != nil {
			return err
		}
		addr, left = addr+uint64(len(p)), left-int64(len(p))
		if m.over() {
			return machine.ErrEnded
		}
	}
	return nil
}

// over reports that the VM has ended.
func (m *Monitor) over() bool {
	select {
	case <-m.vm.Ended():
		return true
	default:
		return false
	}
}

// create makes a file of the host that only its owner can read. It refuses a FIFO: all
// monitors would wait for its reader.
func create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NONBLOCK, 0o600)
	fifo := errors.Is(err, unix.ENXIO)
	if err == nil {
		st, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		fifo = st.Mode()&os.ModeNamedPipe != 0
	}
	var no unix.Errno
	switch {
	case fifo && f != nil:
		_ = f.Close() // nothing was written
		fallthrough
	case fifo:
		return nil, fmt.Errorf("Could not open '%s': it is a FIFO, not a file", path)
	case errors.As(err, &no):
		text := no.Error()
		return nil, fmt.Errorf("Could not open '%s': %s", path, strings.ToUpper(text[:1])+text[1:])
	case err != nil:
		return nil, err
	}
	return f, nil
}

func (a *dumpArguments) check() error {
	switch {
	case a.Format != "" && a.Format != "elf" && (a.Paging || a.Begin != nil || a.Length != nil):
		return errors.New("kdump-compressed format doesn't support paging or filter")
	case a.Format != "" && a.Format != "elf":
		return fmt.Errorf("a dump in the format %s is not possible: use elf", a.Format)
	case a.Begin != nil && a.Length == nil:
		return errors.New("Parameter 'length' is missing")
	case a.Begin == nil && a.Length != nil:
		return errors.New("Parameter 'begin' is missing")
	}
	return nil
}

// open opens what the core is written to: a file, or one that getfd has brought.
func (m *Monitor) open(protocol string) (*os.File, error) {
	if name, ok := strings.CutPrefix(protocol, "fd:"); ok {
		fd, err := m.descriptors.take(name)
		if err != nil {
			return nil, fmt.Errorf("File descriptor named '%s' has not been found", name)
		}
		return os.NewFile(uintptr(fd), name), nil
	}
	name, ok := strings.CutPrefix(protocol, "file:")
	if !ok {
		return nil, errors.New("Invalid parameter 'protocol'")
	}
	return create(name)
}

// dumpMemory halts the VM, writes the core, and lets the VM go on if it ran.
func (m *Monitor) dumpMemory(_ *qmp.Call, a *dumpArguments) (none qmp.None, err error) {
	if err := a.check(); err != nil {
		return none, err
	}
	if m.dump.get().Status == "active" {
		return none, errDumping
	}
	f, err := m.open(a.Protocol)
	if err != nil {
		return none, err
	}
	ran := false
	err = m.vm.Do(func() error {
		ran = m.vm.Status() == machine.Running
		return m.vm.Pause()
	})
	if err != nil {
		return none, errors.Join(err, f.Close())
	}
	core, err := m.core(a)
	if err != nil {
		m.dump.set("failed", 0, 0)
		return none, errors.Join(err, f.Close(), m.goOn(ran))
	}
	m.dump.set("active", 0, int64(core.Size()))
	if a.Detach == nil || !*a.Detach {
		return none, m.writeCore(core, f, ran)
	}
	m.serving.Add(1)
	go func() {
		defer m.serving.Done()
		if err := m.writeCore(core, f, ran); err != nil {
			m.cfg.Log.Warn("dumping the guest's memory", "error", err)
		}
	}()
	return none, nil
}

func (m *Monitor) goOn(ran bool) error {
	if !ran {
		return nil
	}
	return m.vm.Do(m.vm.Continue)
}

// writeCore writes to f, which it closes, and notes and says how that went.
func (m *Monitor) writeCore(core *elfcore.Core, f *os.File, ran bool) error {
	total := int64(core.Size())
	err := core.Write(f, m.vm.Memory(), func(n uint64) error {
		m.dump.set("active", int64(n), total)
		if m.over() {
			return machine.ErrEnded
		}
		return nil
	})
	err = errors.Join(err, f.Close())
	done := dumpCompleted{Result: dumpInfo{"completed", total, total}}
	if err != nil {
		done = dumpCompleted{dumpInfo{"failed", m.dump.get().Completed, total}, err.Error()}
	}
	m.dump.set(done.Result.Status, done.Result.Completed, done.Result.Total)
	m.server.Emit("DUMP_COMPLETED", done)
	return errors.Join(err, m.goOn(ran))
}

// core is what is to be written of the halted guest.
func (m *Monitor) core(a *dumpArguments) (*elfcore.Core, error) {
	c := &elfcore.Core{CPUs: make([]x86.State, len(m.vm.CPUs()))}
	for i := range c.CPUs {
		if err := m.state(i, &c.CPUs[i]); err != nil {
			return nil, err
		}
	}
	from, to := uint64(0), ^uint64(0)
	if a.Begin != nil {
		from, to = uint64(*a.Begin), uint64(*a.Begin)+uint64(*a.Length)
	}
	for _, r := range m.vm.Memory().Regions() {
		if lo, hi := max(r.GPA, from), min(r.End(), to); lo < hi {
			c.Regions = append(c.Regions, elfcore.Region{Address: lo, Size: hi - lo})
		}
	}
	if len(c.Regions) == 0 {
		return nil, errors.New("dump: no guest memory to dump")
	}
	if a.Paging {
		return c, m.addMappings(c)
	}
	c.Loads = identity(c.Regions)
	return c, nil
}

func identity(regions []elfcore.Region) (list []elfcore.Load) {
	for _, r := range regions {
		list = append(list, elfcore.Load{Virtual: r.Address, Physical: r.Address, Size: r.Size})
	}
	return list
}

// maxLoads is as many runs of virtual addresses as a core names; a guest can have more.
const maxLoads = 1 << 20

// addMappings adds the virtual addresses of all vCPUs that lead to the core's
// regions; of a guest without paging they are its physical ones.
func (m *Monitor) addMappings(c *elfcore.Core) error {
	seen := map[elfcore.Load]bool{}
	paging := false
	for i := range c.CPUs {
		on, err := inspect.Mapped(m.vm.Memory(), &c.CPUs[i], func(va, gpa, size uint64) error {
			for _, r := range c.Regions {
				lo, hi := max(gpa, r.Address), min(gpa+size, r.Address+r.Size)
				if lo < hi {
					seen[elfcore.Load{Virtual: va + lo - gpa, Physical: lo, Size: hi - lo}] = true
				}
			}
			if len(seen) > maxLoads {
				return errors.New("dump: the guest maps its memory in too many pieces: leave paging out")
			}
			return nil
		})
		if err != nil {
			return err
		}
		paging = paging || on
	}
	if !paging {
		c.Loads = identity(c.Regions)
		return nil
	}
	for l := range seen {
		c.Loads = append(c.Loads, l)
	}
	slices.SortFunc(c.Loads, func(a, b elfcore.Load) int {
		return cmp.Or(cmp.Compare(a.Virtual, b.Virtual), cmp.Compare(a.Physical, b.Physical), cmp.Compare(a.Size, b.Size))
	})
	return nil
}

// infoDump prints what the latest dump did.
func (m *Monitor) infoDump(w io.Writer) {
	d := m.dump.get()
	fmt.Fprintf(w, "Status: %s\n", d.Status)
	if d.Status == "active" {
		fmt.Fprintf(w, "Finished: %.2f %%\n", 100*float64(d.Completed)/float64(max(d.Total, 1)))
	}
}
