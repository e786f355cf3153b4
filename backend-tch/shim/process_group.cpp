// torch's own engine for processes that compute together: a key-value store in which they meet, and Gloo,
// with which they exchange. Every function returns nullptr, or what went wrong, for the caller to free.

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct Group {
    c10::intrusive_ptr<c10d::Store> store;
    c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
    int world_size;
};

struct Exchange {
    std::vector<at::Tensor> tensors;
    c10::intrusive_ptr<c10d::Work> work;
};

template <typename Body>
char* attempt(Body body) {
    try {
        body();
        return nullptr;
    } catch (const std::exception& error) {
        return strdup(error.what());
    } catch (...) {
        return strdup("an exception that is none of C++'s own");
    }
}

}  // namespace

extern "C" {

// Meets the others in a store that rank 0 serves, unless it is served elsewhere.
char* deep_fusion_store(const char* host, uint16_t port, bool serve, const char* prefix, int64_t timeout_ms, Group** out) {
    return attempt([&] {
        c10d::TCPStoreOptions options;
        options.port = port;
        options.isServer = serve;
        options.waitWorkers = false;
        options.timeout = std::chrono::milliseconds(timeout_ms);
        c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::TCPStore>(std::string(host), options);
        store = c10::make_intrusive<c10d::PrefixStore>(std::string(prefix), store);
        *out = new Group{store, nullptr, 1};
    });
}

// Connects the ranks over this network interface or this address of the host; over the host's name if both are empty.
char* deep_fusion_connect(Group* group, int rank, int world_size, const char* interface, const char* address, int64_t timeout_ms) {
    return attempt([&] {
        auto options = c10d::ProcessGroupGloo::Options::create(std::chrono::milliseconds(timeout_ms));
        if (*interface) {
            options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForInterface(interface));
        } else if (*address) {
            options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(address));
        } else {
            options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
        }
        auto store = c10::make_intrusive<c10d::PrefixStore>("gloo", group->store);
        group->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, world_size, options);
        group->world_size = world_size;
    });
}

void deep_fusion_leave(Group* group) { delete group; }

char* deep_fusion_store_set(Group* group, const char* key, const uint8_t* value, size_t size) {
    return attempt([&] { group->store->set(key, std::vector<uint8_t>(value, value + size)); });
}

// The value of a key, for the caller to free; nullptr if there is none.
char* deep_fusion_store_get(Group* group, const char* key, uint8_t** value, size_t* size) {
    return attempt([&] {
        *value = nullptr;
        if (group->store->check({std::string(key)})) {
            std::vector<uint8_t> found = group->store->get(key);
            *size = found.size();
            *value = static_cast<uint8_t*>(malloc(found.size() + 1));
            memcpy(*value, found.data(), found.size());
        }
    });
}

// Begins to add up `size` numbers over all ranks, in place. They must stay where they are until the exchange has been
// waited for.
char* deep_fusion_all_reduce(Group* group, float* values, int64_t size, Exchange** out) {
    return attempt([&] {
        std::vector<at::Tensor> tensors{at::from_blob(values, {size}, at::kFloat)};
        auto work = group->gloo->allreduce(tensors);
        *out = new Exchange{tensors, work};
    });
}

// The same for a tensor.
char* deep_fusion_all_reduce_tensor(Group* group, at::Tensor* tensor, Exchange** out) {
    return attempt([&] {
        std::vector<at::Tensor> tensors{*tensor};
        auto work = group->gloo->allreduce(tensors);
        *out = new Exchange{tensors, work};
    });
}

char* deep_fusion_wait(Exchange* exchange) {
    char* error = attempt([&] { exchange->work->wait(); });
    delete exchange;
    return error;
}

// `out` has room for `size` bytes of every rank.
char* deep_fusion_all_gather(Group* group, const uint8_t* own, int64_t size, uint8_t* out) {
    return attempt([&] {
        at::Tensor input = at::from_blob(const_cast<uint8_t*>(own), {size}, at::kByte);
        at::Tensor output = at::from_blob(out, {size * group->world_size}, at::kByte);
        group->gloo->_allgather_base(output, input)->wait();
    });
}

}  // extern "C"
