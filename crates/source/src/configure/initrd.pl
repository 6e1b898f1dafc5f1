# Names of the packages, not yet configured, that have a hand in an initrd: those that ship something where
# mkinitramfs reads, those that ask for a new one, and all that these depend on. Where one of several packages
# would do, all of them are taken.
use strict;
use warnings;
my ($dpkg, @inputs) = @ARGV;
my (%needs, %state, %provided, @queue);
open(my $status, '<', "$dpkg/status") or die "$dpkg/status: $!\n";
{
    local $/ = '';
    while (my $paragraph = <$status>) {
        $paragraph =~ s/\n[ \t]+/ /g;
        my %field = map { /^([^:]+):\s*(.*)$/ ? (lc $1, $2) : () } split /\n/, $paragraph;
        my $name = $field{package} // next;
        my $names = sub { map { s/[\s(:].*//r } map { s/^\s+//r } split /[,|]/, join ',', @_ };
        $needs{$name} = [$names->(grep { defined } @field{'depends', 'pre-depends'})];
        $state{$name} = (split / /, $field{status} // '')[2] // '';
        push @{ $provided{$_} }, $name for $names->($field{provides} // '');
    }
}
my $inputs = join '|', map { quotemeta } @inputs, '/usr/lib/modules';
for my $file (glob "$dpkg/info/*.{list,preinst,postinst,triggers}") {
    my ($name, $kind) = $file =~ m{([^/:]+)(?::[^/.]+)?\.(\w+)$} or next;
    my $sign = $kind eq 'list' ? qr{^(?:$inputs)/.}m : qr/update-initramfs/;
    open(my $in, '<', $file) or die "$file: $!\n";
    local $/;
    push @queue, $name if (<$in> // '') =~ $sign;
}
my %seen;
while (defined(my $name = pop @queue)) {
    next if $seen{$name}++ || !$needs{$name};
    push @queue, map { ($_, @{ $provided{$_} // [] }) } @{ $needs{$name} };
}
my @wanted = grep { ($state{$_} // '') =~ /^(?:unpacked|half-configured)$/ } sort keys %seen;
print "@wanted\n" if @wanted;
