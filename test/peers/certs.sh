#!/bin/sh
# Makes the authorities, certificates and keys of the tests of TLS in DIR, with
# openssl alone.  For each NAME: NAME.pem (the certificate, and those that lead
# up to the authority), NAME.key and NAME.pin, the SHA-256 of the public key
# as in RFC 7469.
#
#   authority  trusted          stranger  an authority of the same name, not
#   host       for localhost, P-256       rsa    the same with RSA, 2048 bits
#   other      for other.example          late   for localhost, until 2021
#   lone       for localhost, by itself   early  for localhost, from 2040
#   foreign    for localhost, by the stranger
#   deep       for localhost, by an authority between
#   user       a client's
set -eu
cd "$1"
mkdir made
: >index.txt

cat >openssl.cnf <<'END'
[ca]
default_ca = here
[here]
database = index.txt
new_certs_dir = made
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
organizationName = optional
commonName = supplied
[req]
distinguished_name = empty
[empty]
END

key() # name [rsa]
{
    if [ "${2:-}" = rsa ]; then
        set -- "$1" RSA rsa_keygen_bits:2048
    else
        set -- "$1" EC ec_paramgen_curve:P-256
    fi
    openssl genpkey -quiet -algorithm "$2" -pkeyopt "$3" -out "$1.key"
    openssl pkey -in "$1.key" -pubout -outform DER |
        openssl dgst -sha256 -binary | openssl base64 >"$1.pin"
}

extensions() # alternative name, or "ca"
{
    if [ "$1" = ca ]; then
        echo 'basicConstraints = critical, CA:TRUE'
        echo 'keyUsage = critical, keyCertSign, cRLSign'
    else
        echo 'basicConstraints = critical, CA:FALSE'
        echo 'keyUsage = critical, digitalSignature'
        echo "subjectAltName = DNS:$1"
    fi
}

# Of the key that is there: signed by that authority, or by itself.
cert() # name common-name alternative-name authority from to
{
    extensions "$3" >"$1.ext"
    openssl req -new -config openssl.cnf -key "$1.key" \
        -subj "/O=rtnet/CN=$2" -out "$1.csr"
    if [ "$1" = "$4" ]; then
        set -- "$@" -selfsign
    else
        set -- "$@" -cert "$4.pem"
    fi
    by=$4.key to=$1 from=$5 until=$6
    shift 6
    openssl ca -config openssl.cnf -batch -notext -in "$to.csr" \
        -keyfile "$by" -extfile "$to.ext" -startdate "${from}0101000000Z" \
        -enddate "${until}0101000000Z" -out "$to.pem" "$@"
}

make() # name common-name alternative-name authority from to [rsa]
{
    key "$1" "${7:-}"
    cert "$1" "$2" "$3" "$4" "$5" "$6"
}

all()
{
    make authority 'test authority' ca authority 2020 2045
    make stranger 'test authority' ca stranger 2020 2045
    make between 'authority between' ca authority 2020 2045
    make host localhost localhost authority 2020 2045
    make rsa localhost localhost authority 2020 2045 rsa
    make other other.example other.example authority 2020 2045
    make late localhost localhost authority 2020 2021
    make early localhost localhost authority 2040 2045
    make lone localhost localhost lone 2020 2045
    make foreign localhost localhost stranger 2020 2045
    make deep localhost localhost between 2020 2045
    make user user user authority 2020 2045
    cat between.pem >>deep.pem
}

all 2>log || {
    cat log >&2
    exit 1
}
