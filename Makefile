# make demo   boots a Debian kernel in a VM of berth's
# make test   runs all tests, guests included
# Both install what they need from Debian's packages (root or sudo).

export CGO_ENABLED = 0
GO ?= go

.PHONY: all build demo test bench-boot bench-cpu bench-vmm bench-latency bench-fio bench-image bench-net fuzz fuzz-cpu fuzz-image hostile nested nested-debian nested-gdb hotplug soft-boots soft-debian debian-qcow2 stress soak clean need-go setup

all: build

# Go 1.21 and later fetch the version that go.mod names by themselves.
need-go:
	@v=$$($(GO) env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p'); [ "$${v:-0}" -ge 21 ] || { \
		echo "berth needs Go 1.26 or later: unpack it from https://go.dev/dl to /usr/local/go and put /usr/local/go/bin in PATH" >&2; exit 1; }

build: need-go
	$(GO) build -trimpath -ldflags="-s -w" -o berth ./cmd/berth

# The guest's kernel, initrd and disk, and the packages that tests need.
setup:
	@tests/guest/setup

demo: build setup
	@tests/guest/demo

test: build
	@tests/guest/setup --test
	$(GO) vet ./...
	$(GO) test -timeout 40m ./...

# Kernel to userland beside QEMU's TCG, CPU-seconds.
bench-boot: build
	@tests/guest/setup --test
	$(GO) run ./tests/perf/bootbench $(BENCH)

# Workloads of known answer, natively, on soft and on QEMU's TCG, CPU-seconds.
bench-cpu: build
	@tests/guest/setup --test
	$(GO) run ./tests/perf/cpubench $(BENCH)

# What a VM costs its host beside QEMU, on soft and on a real KVM: start, memory, exits, idle CPU.
bench-vmm: build
	@tests/guest/setup --test
	$(GO) run ./tests/perf/vmmbench $(BENCH)

# How late interrupts wake a halted vCPU while others spin, measured in the guest, beside QEMU's TCG and the host itself.
bench-latency: build
	@tests/guest/setup --test
	$(GO) run ./tests/perf/latency $(BENCH)

# Disk images beside qemu-img: convert, check, map, create, snapshot, commit, rebase, bench.
bench-image: build
	@tests/guest/setup --test
	$(GO) run ./tests/perf/imagebench $(BENCH)

# Debian's fio in the same guest beside QEMU, on raw and qcow2: soft beside TCG, and on a real KVM.
bench-fio: build
	@tests/guest/setup --test --fio
	$(GO) run ./tests/perf/fiobench $(BENCH)

# Twenty million cases on the host's CPU, interpreted and translated: half of them single instructions, half sequences.
fuzz-cpu: need-go
	$(GO) test -timeout 24h -count 1 -run 'TestHostCPU|TestSequences|TestInterrupts|TestStores|TestGuards' -v ./tests/hostcpu -hostcpu.cases=10000000

# The network beside QEMU's: iperf3 and ping in the same guest on the user network and a tap, on soft beside TCG, and on a real KVM.
bench-net: build
	@tests/guest/setup --test --net
	$(GO) run ./tests/perf/netbench $(BENCH)

# Every fuzz target for a minute.
fuzz: need-go
	@tests/fuzz

# Ten thousand random sequences of image operations, by berth and by QEMU's tools.
fuzz-image: need-go
	$(GO) test -timeout 6h -count 1 -v -run TestInterchange ./tests/image -image.runs=10000

# Guests that do their worst, twelve minutes on each engine and on soft under Go's race detector.
hostile: build
	@tests/guest/setup --test
	$(GO) test -timeout 3h -count 1 -v ./tests/hostile -hostile.each 60s -hostile.nested

# Disks and NICs come and go two hundred times, under load, in Debian's kernel.
hotplug: setup
	$(GO) test -timeout 1h -count 1 -v ./tests/devices -run Cycles -hotplug.cycles=200

# Debian's kernel on the soft engine, RUNS times each with 1, 2, 8 and 64 vCPUs.
RUNS ?= 20
soft-boots: build setup
	$(GO) test -timeout 3h -count 1 -v -run TestDebianOnSoft ./cmd/berth -debian.runs=$(RUNS) -debian.cpus=1,2,8,64

# A whole Debian from its disk on the soft engine, ten times.
soft-debian: need-go
	$(GO) test -timeout 5h -count 1 -v -run TestDebian ./tests/debian -debian.runs=10

# A whole Debian on the soft engine from a qcow2 overlay of a compressed image, which is committed afterwards.
debian-qcow2: need-go
	$(GO) test -timeout 2h -count 1 -v -run TestQcow2 ./tests/debian -debian.qcow2

# Debian's stress-ng verifies for twenty minutes what four vCPUs of the soft engine compute.
stress: need-go
	$(GO) test -timeout 2h -count 1 -v -run TestStress ./tests/debian -debian.cpus=4 -debian.stress=20m

# Debian works for an hour on four vCPUs of the soft engine, whose monitor has its garbage collected every 10 ms and its CPU profiled.
soak: need-go
	$(GO) test -timeout 4h -count 1 -v -run TestSoak ./tests/debian -debian.cpus=4 -debian.soak=1h

# Debian's kernel in VMs on a real KVM, five times each with 1, 2, 4 and 8 vCPUs.
nested: build
	$(GO) test -timeout 2h -count 1 -v ./tests/nested -nested.runs=5

# gdb without Python (Debian's gdb-minimal) debugs a guest on a real KVM.
GDB ?= gdb
nested-gdb: build
	@tests/guest/setup --test
	$(GO) test -timeout 20m -count 1 -v -run TestOnRealKVM ./tests/gdb -gdb.nested=$$(command -v $(GDB))

# A whole Debian from its disk on a real KVM, ten times, ten minutes each on a host that has nothing else to do.
nested-debian: build
	$(GO) test -timeout 12h -count 1 -v -run TestDebian$$ ./tests/nested -nested.debian=10

clean:
	rm -rf berth .cache
