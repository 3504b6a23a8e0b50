//! A frame of any octets: the layers that are found are in order, and inside it.

use tapway_dataplane::wire::Layers;

pub fn run(frame: &[u8]) {
    for type_at in [12, 16, usize::MAX] {
        let Ok(layers) = Layers::parse_at(frame, type_at) else { continue };
        assert_eq!(layers.l3, type_at + 4 * usize::from(layers.tags) + 2);
        assert!(layers.l3 <= frame.len());
        if let Some(ip) = layers.ip {
            assert!(layers.l3 < ip.l4 && ip.l4 <= ip.end && ip.end <= frame.len());
        }
    }
}
