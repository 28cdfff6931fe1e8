/* The path of `benchmarks.programs.memory`, in ns-3: from a pod, by a bridge, a router, three switches, a router and
 * a bridge, to another pod; UDP with 64 bytes of data, one datagram each 10 microseconds of simulated time.
 *
 *   leaf_spine sockets COUNT      from a UDP client to a UDP server: the pods' stacks take part
 *   leaf_spine ports COUNT        a ready frame goes in by one pod's device, and is counted at the other's
 *
 * Prints: delivered, wall seconds.
 *
 * Switches and bridges are ns-3's BridgeNetDevice, cables its CsmaChannel with a rate and a delay (ns-3 has no cable
 * without), routers its Internet stack with static routes.
 */
#include "ns3/applications-module.h"
#include "ns3/bridge-module.h"
#include "ns3/core-module.h"
#include "ns3/csma-module.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"

#include <chrono>
#include <iostream>
#include <string>
#include <vector>

using namespace ns3;

namespace {

const uint16_t kPort = 9;
const uint32_t kData = 64;
const int64_t kEachNanoseconds = 10000;

class Fabric {
  public:
    Fabric() {
        cable_.SetChannelAttribute("DataRate", StringValue("100Gbps"));
        cable_.SetChannelAttribute("Delay", TimeValue(NanoSeconds(100)));
    }

    /* A cable from a machine to a switch: the machine's device. */
    Ptr<NetDevice> plug(Ptr<Node> machine, size_t at) {
        NetDeviceContainer ends = cable_.Install(NodeContainer(machine, switches_.Get(at)));
        ports_[at].Add(ends.Get(1));
        return ends.Get(0);
    }

    void join(size_t one, size_t other) {
        NetDeviceContainer ends = cable_.Install(NodeContainer(switches_.Get(one), switches_.Get(other)));
        ports_[one].Add(ends.Get(0));
        ports_[other].Add(ends.Get(1));
    }

    void make(size_t count) {
        switches_.Create(count);
        ports_.resize(count);
    }

    void finish() {
        BridgeHelper bridges;
        for (size_t i = 0; i < ports_.size(); i++)
            bridges.Install(switches_.Get(i), ports_[i]);
    }

  private:
    CsmaHelper cable_;
    NodeContainer switches_;
    std::vector<NetDeviceContainer> ports_;
};

/* Give a device an address; the number of its interface. */
uint32_t address(Ptr<NetDevice> device, const char* text) {
    Ptr<Ipv4> ip = device->GetNode()->GetObject<Ipv4>();
    uint32_t interface = ip->AddInterface(device);
    ip->AddAddress(interface, Ipv4InterfaceAddress(Ipv4Address(text), Ipv4Mask("255.255.255.0")));
    ip->SetUp(interface);
    return interface;
}

void route(Ptr<Node> node, const char* network, const char* mask, const char* via, uint32_t interface) {
    Ipv4StaticRoutingHelper helper;
    Ptr<Ipv4StaticRouting> table = helper.GetStaticRouting(node->GetObject<Ipv4>());
    table->AddNetworkRouteTo(Ipv4Address(network), Ipv4Mask(mask), Ipv4Address(via), interface);
}

/* A frame in by a device each interval, counted where it comes out. */
class Ports {
  public:
    Ports(Ptr<NetDevice> in, Ptr<NetDevice> out, Address router, uint32_t count)
        : in_(in), out_(out), router_(router), left_(count) {
        UdpHeader udp;
        udp.SetSourcePort(40000);
        udp.SetDestinationPort(kPort);
        Ipv4Header ip;
        ip.SetSource(Ipv4Address("10.244.1.2"));
        ip.SetDestination(Ipv4Address("10.244.2.2"));
        ip.SetProtocol(17);
        ip.SetTtl(64);
        ip.SetPayloadSize(kData + 8);
        frame_ = Create<Packet>(kData);
        frame_->AddHeader(udp);
        frame_->AddHeader(ip);
    }

    void warmUp() { in_->Send(frame_->Copy(), router_, 0x0800); }

    void begin() {
        out_->SetReceiveCallback(MakeCallback(&Ports::count, this));
        send();
    }

    uint32_t received() const { return received_; }

  private:
    void send() {
        if (left_-- == 0)
            return;
        in_->Send(frame_->Copy(), router_, 0x0800);
        Simulator::Schedule(NanoSeconds(kEachNanoseconds), &Ports::send, this);
    }

    bool count(Ptr<NetDevice>, Ptr<const Packet>, uint16_t, const Address&) {
        received_++;
        return true;
    }

    Ptr<NetDevice> in_, out_;
    Address router_;
    Ptr<Packet> frame_;
    uint32_t left_, received_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: leaf_spine sockets|ports COUNT\n";
        return 2;
    }
    const bool sockets = std::string(argv[1]) == "sockets";
    const uint32_t count = std::stoul(argv[2]);
    enum { kBridge1, kBridge2, kLeaf1, kLeaf2, kSpine, kSwitches };

    NodeContainer pods, hosts;
    pods.Create(2);
    hosts.Create(2);
    InternetStackHelper stack;
    stack.Install(pods);
    stack.Install(hosts);

    Fabric fabric;
    fabric.make(kSwitches);
    Ptr<NetDevice> in = fabric.plug(pods.Get(0), kBridge1), out = fabric.plug(pods.Get(1), kBridge2);
    Ptr<NetDevice> router = fabric.plug(hosts.Get(0), kBridge1);
    uint32_t pod1 = address(in, "10.244.1.2");
    uint32_t pod2 = address(out, "10.244.2.2");
    address(router, "10.244.1.1");
    address(fabric.plug(hosts.Get(1), kBridge2), "10.244.2.1");
    uint32_t uplink1 = address(fabric.plug(hosts.Get(0), kLeaf1), "192.0.2.1");
    uint32_t uplink2 = address(fabric.plug(hosts.Get(1), kLeaf2), "192.0.2.2");
    fabric.join(kLeaf1, kSpine);
    fabric.join(kSpine, kLeaf2);
    fabric.finish();

    route(pods.Get(0), "0.0.0.0", "0.0.0.0", "10.244.1.1", pod1);
    route(pods.Get(1), "0.0.0.0", "0.0.0.0", "10.244.2.1", pod2);
    route(hosts.Get(0), "10.244.2.0", "255.255.255.0", "192.0.2.2", uplink1);
    route(hosts.Get(1), "10.244.1.0", "255.255.255.0", "192.0.2.1", uplink2);

    Ports ports(in, out, router->GetAddress(), count);
    UdpServerHelper receiver(kPort);
    ApplicationContainer receiving = receiver.Install(pods.Get(1));
    receiving.Start(Seconds(0));
    UdpClientHelper sender(Ipv4Address("10.244.2.2"), kPort);
    if (sockets) {
        sender.SetAttribute("MaxPackets", UintegerValue(count));
        sender.SetAttribute("Interval", TimeValue(NanoSeconds(kEachNanoseconds)));
        sender.SetAttribute("PacketSize", UintegerValue(kData));
        sender.Install(pods.Get(0)).Start(Seconds(0.1));
    } else {
        Simulator::Schedule(Seconds(0.01), &Ports::warmUp, &ports);
        Simulator::Schedule(Seconds(0.1), &Ports::begin, &ports);
    }
    Simulator::Stop(Seconds(0.2) + NanoSeconds(count * kEachNanoseconds));

    auto began = std::chrono::steady_clock::now();
    Simulator::Run();
    std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
    uint64_t got = sockets ? DynamicCast<UdpServer>(receiving.Get(0))->GetReceived() : ports.received();
    std::cout << got << " " << took.count() << "\n";
    Simulator::Destroy();
    return 0;
}
