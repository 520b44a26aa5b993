package main

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"berth/spec"
)

// everything is a command line with every flag that describes the machine, each
// with another value than its default.
var everything = []string{
	"--kernel=k", "--initrd=i", "--append=quiet", "--machine=microvm", "--hotplug-slots=2", "--memory=1G,hugepages=2M,prefault,share,file=m,host-nodes=0,policy=bind",
	"--cpus=2,sockets=2,cores=1,threads=1,maxcpus=2",
	"--numa=node,cpus=0,memory=512M,host-nodes=0,policy=bind", "--numa=node,cpus=1,memory=512M,host-nodes=1,policy=preferred", "--numa=dist,src=1,dst=1,val=10",
	"--disk=file=d,format=raw,readonly,serial=s,id=i,node-name=n,cache=none,aio=native,snapshot,discard=unmap,detect-zeroes=on,references=refuse,queues=3," +
		"iops=1,iops_rd=1,iops_wr=1,iops_max=1,iops_rd_max=1,iops_wr_max=1,iops_size=1,bps=1,bps_rd=1,bps_wr=1,bps_max=1,bps_rd_max=1,bps_wr_max=1," +
		"throttling.iops-total-max-length=1,throttling.iops-read-max-length=1,throttling.iops-write-max-length=1," +
		"throttling.bps-total-max-length=1,throttling.bps-read-max-length=1,throttling.bps-write-max-length=1", "--accel=soft", "--soft-engine=interp", "--cpu=v1", "--name=n", "--decompress=host", "--pvpanic=off", "--on-panic=reset",
	"--serial=pty,file=f,append,pipe=p,socket=s,tcp=localhost:1,server,size=1,id=i", "--console=pty,file=f,append,pipe=p,socket=s,tcp=localhost:1,server,size=1,id=i",
	"--port=name=n,to=pty,file=f,append,pipe=p,socket=s,tcp=localhost:1,server,size=1,id=i",
	"--nic=dgram,id=n,model=virtio,mac=m,mtu=1,queues=2,speed=1,rss,hash,ifname=i,br=b,fds=1:2,server,reconnect=1,pcap=p," +
		"ipv4=off,net=n,host=h,dns=d,dhcpstart=d,ipv6=off,ipv6-net=n,ipv6-prefix=p,ipv6-prefixlen=64,ipv6-host=h,ipv6-dns=d,restrict,loopback,hostname=h,domainname=d,dnssearch=a," +
		"dnssearch=b,hostfwd=tcp::1-:2,hostfwd=udp:127.0.0.1:1-10.0.2.15:2,guestfwd=tcp::1-cmd:a b," +
		"addr.type=unix,addr.path=p,addr.host=h,addr.port=1,addr.str=1,local.type=unix,local.path=p,local.host=h,local.port=1,local.str=1," +
		"remote.type=unix,remote.path=p,remote.host=h,remote.port=1,remote.str=1," +
		"bps_in=1,bps_in_burst=1,bps_out=1,bps_out_burst=1,pps_in=1,pps_in_burst=1,pps_out=1,pps_out_burst=1",
	"--balloon=on,id=b,deflate-on-oom,free-page-reporting", "--vsock=cid=3,socket=v", "--cloud-init=u,meta-data=m,network-config=n,ssh-key=s", "--gdb=unix:g", "--qmp=socket=q,tcp=localhost:1,server", "--hmp=stdio,socket=q,tcp=localhost:1,server", "--uuid=u", "--debug-exit", "--no-reboot", "--no-shutdown", "--paused",
}

// leaves calls f for every field that holds no other fields, by its keys in a machine file.
func leaves(v reflect.Value, path string, f func(path string, v reflect.Value)) {
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Anonymous {
				leaves(v.Field(i), path, f)
				continue
			}
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			leaves(v.Field(i), strings.TrimPrefix(path+"."+name, "."), f)
		}
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		if v.Len() == 0 {
			f(path, v)
			return
		}
		leaves(v.Index(v.Len()-1), path+"[]", f)
	default:
		f(path, v)
	}
}

// A machine file has a place for every field of spec.Machine (package spec
// proves it); here every field has a flag, and every flag a field.
func TestEveryFieldHasAFlag(t *testing.T) {
	f := &runFlags{}
	flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f.declare(flags)
	if err := flags.Parse(everything); err != nil {
		t.Fatal(err)
	}
	m := spec.Default()
	before := map[string]string{}
	leaves(reflect.ValueOf(m), "", func(path string, v reflect.Value) { before[path] = fmt.Sprint(v) })
	for _, set := range f.given {
		if err := set(&m); err != nil {
			t.Fatal(err)
		}
	}
	leaves(reflect.ValueOf(m), "", func(path string, v reflect.Value) {
		old, had := before[path]
		if path != "version" && (v.IsZero() || had && old == fmt.Sprint(v)) { // only a file has a version
			t.Errorf("no flag sets %s: it is %v", path, v)
		}
	})
	flags.VisitAll(func(flag *pflag.Flag) {
		if _, ok := flag.Value.(*setting); ok && !flag.Changed {
			t.Errorf("--%s describes the machine, and this test does not set it", flag.Name)
		}
	})
}

// What each flag alone changes is a field of the machine file.
func TestEveryFlagChangesTheMachine(t *testing.T) {
	for _, arg := range everything {
		f := &runFlags{}
		flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
		f.declare(flags)
		if err := flags.Parse([]string{arg}); err != nil {
			t.Fatal(err)
		}
		m := spec.Default()
		if err := f.given[0](&m); err != nil || len(f.given) != 1 {
			t.Fatalf("%s: %v", arg, err)
		}
		if reflect.DeepEqual(m, spec.Default()) {
			t.Errorf("%s changes nothing", arg)
		}
	}
}
