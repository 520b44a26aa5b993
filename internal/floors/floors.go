// Package floors states the order in which berth's packages stand on one another.
package floors

// Order lists every package of the module, lowest first; what follows a # says
// which floor begins. A package may import only packages on earlier lines;
// packages on one line do not import one another.
const Order = `
# values
internal/floors internal/suggest internal/thread
spec guestmem kvmapi irq clock x86

# mechanisms
bus x86/optab x86/mmu block block/inflate chardev qmp netdev
netdev/netdevtest
x86/decode x86/fp
x86/jit
x86/interp

# parts
device/uart device/rtc device/pit device/ferr device/pic device/ioapic device/lapic device/pm device/i8042 device/debugexit device/debugcon device/pvpanic device/pcihp
pci block/blocktest block/mapped block/pool boot/boottest
block/mapped/mappedtest
accel virtio netdev/socket netdev/tap netdev/throttle netdev/pcap netdev/user acpi block/raw block/qcow2 block/vmdk block/vhdx block/vpc block/vdi block/throttle block/uring boot/unpack
block/formats
boot
accel/acceltest accel/kvm accel/soft boot/linux boot/pvh boot/multiboot virtio/blk virtio/net virtio/console virtio/rng virtio/balloon virtio/vsock virtio/virtiotest
boot/direct

# the machine
block/backend
machine
monitor/hmp monitor/inspect monitor/elfcore
gdb monitor

# what a person types
doctor image rundir cloudinit
cmd/berth

# what is measured and tested from outside
tests/guest tests/process tests/nested
tests/...
`
