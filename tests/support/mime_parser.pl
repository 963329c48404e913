# Reads each mail file that is named and prints what Perl's MIME::Parser makes of it, as JSON: a second
# opinion about our mails, from a library that shares nothing with the one that wrote them.
use strict;
use warnings;
use Encode qw(decode);
use JSON::PP;
use MIME::Parser;

my @mails;
for my $path (@ARGV) {
    my $parser = MIME::Parser->new;
    $parser->output_to_core(1);
    my $mail = $parser->parse_open($path);
    my %headers;
    for my $name ($mail->head->tags) {
        my @values = map { my $value = $_; $value =~ s/\s*\n\s+/ /g; chomp $value; decode('MIME-Header', $value) }
            $mail->head->get_all($name);
        $headers{lc $name} = \@values;
    }
    my @parts = map {
        +{
            type => $_->effective_type,
            text => decode($_->head->mime_attr('content-type.charset') // 'us-ascii', $_->bodyhandle->as_string),
        }
    } grep { $_->bodyhandle } $mail->parts_DFS;
    push @mails, {
        type     => $mail->effective_type,
        headers  => \%headers,
        parts    => \@parts,
        problems => [map { "$_" } $parser->results->errors, $parser->results->warnings],
    };
}
print JSON::PP->new->utf8->canonical->encode(\@mails);
