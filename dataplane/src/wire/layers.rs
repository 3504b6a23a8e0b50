//! Where the layers of a frame begin: tags, IP header, transport header.
