# script.pl N: words of N rounds are made, counted by a hash, matched, sorted and joined. Prints a sum.
# It needs no module.
my ($rounds) = @ARGV;
my ($seed, $sum) = (7, 0);
for my $round (1 .. $rounds) {
	my %count;
	for (1 .. 200) {
		$seed = ($seed * 1103515245 + 12345) & 0x7fffffff;
		my $word = join '', map { chr(97 + (($seed >> $_) & 7)) } (4, 9, 14);
		$count{$word}++;
	}
	my $line = join ' ', map { "$_=$count{$_}" } sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
	$sum += length $1 while $line =~ /\b([a-d]+[e-h]*)=\d/g;
	(my $other = $line) =~ s/(\w)(\w)/$2$1/g;
	$sum = ($sum * 31 + unpack('%32C*', $other)) & 0xffffffff;
}
print "$sum\n";
