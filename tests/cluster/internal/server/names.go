package server

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"holdfast/tests/cluster/internal/settings"
)

// certificateNames are all names and addresses the API answers to.
func certificateNames(s settings.Settings) []string {
	names := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + s.ClusterDomain,
		"localhost", "127.0.0.1", "::1",
		s.ServiceCIDR.Masked().Addr().Next().String(), s.NodeName, s.NodeIP, s.Advertise, s.BindAddress,
	}
	names = append(names, s.TLSNames...)
	slices.Sort(names)
	return slices.Compact(names)
}

// url is the API's address for clients on this machine.
func url(s settings.Settings) string {
	host := s.BindAddress
	if address, err := netip.ParseAddr(host); err != nil || address.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(s.Port))
}
