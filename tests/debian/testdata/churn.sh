# churn.sh JOBS ROUNDS UNTIL makes "programs" of many small processes as make -jJOBS
# does of a kernel's sources, ROUNDS times, or for ever if that is 0, but begins none
# after the second UNTIL of the clock. It prints how many programs it made and the
# sum of each that is not the first one's. All that it runs is in a minimal Debian,
# and says the same on every host.
jobs=$1 rounds=$2 until=$3
LC_ALL=C dir=$(mktemp -d) round=0
export LC_ALL dir
trap 'rm -rf "$dir"' EXIT

# unit N is what a compiler does of one source: it reads, splits, sorts, packs and writes.
unit='
n=$0
src=$dir/$n.c obj=$dir/$n.o
seq $n $((n * 7 + 300)) | sed "s/.*/static int f&(int x) { return x * & + $n; }/" >$src
perl -ne "s/(\d+)/sprintf q(%x), \$1 * 2654435761 % 4294967296/ge; print" <$src |
	sort -k3 | uniq | tr a-f A-F | gzip -6 >$obj.tmp && mv $obj.tmp $obj
i=0
while [ $i -lt 20 ]; do i=$((i + 1)); (exit $i) || [ $? = $i ] || echo "status" >>$obj; done
gzip -dc $obj | cksum >$obj.sum
perl -e "my (%h, \$s); \$h{\$_ % 509} += sqrt(\$_) * exp(\$_ / 4000) for 1 .. 4000; \$s += \$h{\$_} for sort { \$a <=> \$b } keys %h; printf qq(%.9g\n), \$s" >>$obj.sum
'
while [ "$rounds" = 0 ] || [ $round -lt "$rounds" ]; do
	[ "$(date +%s)" -lt "$until" ] || break
	rm -f "$dir"/*
	seq 48 | xargs -P "$jobs" -n 1 sh -c "$unit"
	(cd "$dir" && cat $(seq -f %g.o.sum 48); tar -c --sort=name --owner=0 --group=0 --numeric-owner --mode=644 --mtime=@0 *.c | sha256sum) >"$dir/program"
	sum=$(sha256sum <"$dir/program" | cut -d' ' -f1)
	round=$((round + 1))
	[ "$sum" = "${first:=$sum}" ] || echo "program $round is $sum"
done
echo "$round programs, the first is $first"
