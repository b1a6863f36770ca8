#!/bin/sh
# Make the certificates of the tests anew, by the openssl command; they are valid from 2020 to 2119.
# They are checked in, so that the tests need neither that command nor a package that makes them.
# Nobody trusts the authority, and its own key is thrown away.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { # NAME
    openssl ecparam -name prime256v1 -genkey -noout |
        openssl pkcs8 -topk8 -nocrypt -out "$work/$1.key"
}

sign() { # NAME SUBJECT ISSUER...: sign a request, by the rules that stand in the input
    {
        printf '%s\n' "[ca]" "default_ca=here" "[here]" "database=$work/index" "new_certs_dir=$work" \
            "rand_serial=yes" "default_md=sha256" "policy=any" "unique_subject=no" "[any]" \
            "commonName=supplied" "[extensions]" "subjectKeyIdentifier=hash"
        cat
    } > "$work/$1.cnf"
    : > "$work/index"
    openssl req -new -key "$work/$1.key" -subj "$2" -out "$work/$1.csr"
    name=$1
    shift 2
    openssl ca -batch -notext -config "$work/$name.cnf" -extensions extensions "$@" \
        -startdate 20200101000000Z -enddate 21191231235959Z -in "$work/$name.csr" \
        -out "$work/$name.crt" 2> "$work/log" || { cat "$work/log"; exit 1; }
}

authority() { # NAME
    key authority
    printf '%s\n' "basicConstraints=critical,CA:TRUE" "keyUsage=critical,keyCertSign,cRLSign" |
        sign authority "/CN=uringio tests, $1" -selfsign -keyfile "$work/authority.key"
}

issue() { # NAME SUBJECT USAGE SAN: a key and a certificate that the authority has signed
    key "$1"
    printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
        "extendedKeyUsage=$3" "subjectAltName=$4" "authorityKeyIdentifier=keyid" |
        sign "$1" "$2" -cert "$work/authority.crt" -keyfile "$work/authority.key"
    cat "$work/$1.key" "$work/$1.crt" > "$1.pem"
}

authority "another authority"
issue stranger "/CN=localhost" serverAuth "DNS:localhost,IP:127.0.0.1,IP:::1"
authority "authority"
cp "$work/authority.crt" authority.pem
issue server "/CN=localhost" serverAuth "DNS:localhost,IP:127.0.0.1,IP:::1"
issue client "/CN=client" clientAuth "DNS:client"
