"""Identity: SPIFFE ids, keys, certificates, who is trusted, and when to renew. It decides, and waits for nothing.

Who calls it: the proxy (its own certificate, its peers), the control plane (the authority). It imports the standard
library's pure parts and `cryptography`, no socket, clock or loop; the time is an argument everywhere, in seconds since
the epoch as float, and chance comes from ``certs.keys`` alone.

The rules are those of the SPIFFE X.509-SVID standard, read as strictly as go-spiffe reads them and more strictly where
a line below says so. They are written up for people in docs/identity.md.

========================  ============================================================================================
``errors``                what can be wrong, as one word each
``spiffe``                ids
``keys``                  keys and serial numbers: all chance
``pem``                   certificates as text
``facts``                 what a certificate says, read once, with its bounds
``rules``                 what a leaf and an authority must look like
``path``                  from a certificate to a root, signature by signature
``memory``                what accepted certificates say, for the next handshake
``request``               what a workload asks for
``issue``                 what an authority signs: certificates and revocation lists
``bundle``                which roots speak for which trust domain
``revocation``            what has been taken back
``verify``                who a peer is
``renew``                 when to ask for the next certificate
``xfcc``                  who the peer was, told to the app
========================  ============================================================================================
"""
