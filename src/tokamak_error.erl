%% SPDX-License-Identifier: Apache-2.0
%% @doc Words the errors that the public functions raise (EEP 54).
%% @private
-module(tokamak_error).

-include("tokamak_error.hrl").

-export([format_error/2, options/2]).
-export_type([kind/0, option_kinds/0, cause/0]).

-type kind() ::
    loop
    | fd
    | callback_id
    | event_type
    | milliseconds
    | timeout
    | count
    | size
    | interval
    | limit
    | timer
    | direction
    | backend
    | pid
    | name
    | iodata
    | path
    | modes
    | integer
    | operation
    | arguments
    | calls
    | submissions
    | call
    | calls_in_flight
    | stream
    | mode
    | concurrency
    | node
    | function
    | handler
    | key_function
    | on_error
    | list
    | pool
    | nodes
    | units
    | subscription
    | argv
    | environment
    | boolean
    | input
    | output
    | milliseconds_u32
    | loop_target
    | subprocess
    | credit
    | signal
    | socket
    | term
    | {options, option_kinds()}.
%% What an argument or the value of an option should be.

-type option_kinds() :: #{atom() => kind()}.

-type cause() :: {badarg, [kind()]} | {explained, #{pos_integer() => unicode:chardata()}}.
%% What each argument should have been, or the text for each that is wrong.

-define(MAX_ID, 16#7FFFFFFFFFFFFFFF).
%% A duration that every clock of the library holds: 2^48 ms are 8,900 years.
-define(MAX_MILLISECONDS, 16#FFFFFFFFFFFF).

%% @doc Explains an error that was raised with an `error_info' of this module.
-spec format_error(term(), [tuple()]) -> #{general | pos_integer() => unicode:chardata()}.
format_error(_Reason, [{_Module, _Function, Args, Info} | _]) ->
    case maps:get(cause, proplists:get_value(error_info, Info, #{}), undefined) of
        {badarg, Kinds} when is_list(Args), length(Args) =:= length(Kinds) ->
            explain(lists:zip3(lists:seq(1, length(Args)), Args, Kinds));
        {explained, Explanations} ->
            Explanations;
        not_owner ->
            %% A binary: Elixir takes no other text there.
            #{general => <<"the calling process is not the owner">>};
        _ ->
            #{}
    end.

%% @doc Checks options: every key known, every value of its kind.
-spec options(term(), option_kinds()) -> ok | error.
options(Options, _Kinds) when Options =:= #{} ->
    ok;
options(Options, Kinds) ->
    case is({options, Kinds}, Options) of
        true -> ok;
        false -> error
    end.

explain(Arguments) ->
    maps:from_list([{N, explanation(Kind, Value)} || {N, Value, Kind} <- Arguments, not is(Kind, Value)]).

explanation({options, Kinds}, Options) when is_map(Options) ->
    case maps:keys(maps:without(maps:keys(Kinds), Options)) of
        [] ->
            Wrong = [Key || {Key, Kind} <- maps:to_list(Kinds), not is_option(Key, Kind, Options)],
            lists:join("; ", [
                io_lib:format("option ~p is ~s", [Key, describe(maps:get(Key, Kinds))])
             || Key <- lists:sort(Wrong)
            ]);
        Unknown ->
            Known = lists:join(", ", [atom_to_list(Key) || Key <- lists:sort(maps:keys(Kinds))]),
            io_lib:format("unknown option ~0p (known: ~s)", [hd(Unknown), Known])
    end;
explanation(Kind, _Value) ->
    describe(Kind).

describe(loop) -> "not an event loop";
describe(fd) -> "not a descriptor";
describe(callback_id) -> "not an integer from 1 to 2^63-1";
describe(event_type) -> "not an event type";
describe(milliseconds) -> "not a number of milliseconds from 0 to 2^48-1";
describe(timeout) -> "not a number of milliseconds from 0 to 2^32-1, nor infinity";
describe(count) -> "not a positive integer, or too large";
describe(interval) -> "not a number of milliseconds from 1 to 2^32-1";
describe(size) -> "not an integer from 1 to 2^31-1";
describe(limit) -> "not an integer from 1 to 16777216";
describe(timer) -> "not a timer reference";
describe(direction) -> "neither read nor write";
describe(backend) -> "neither native nor select";
describe(pid) -> "not a local pid";
describe(name) -> "not an atom that a process can be registered by";
describe(iodata) -> "not iodata";
describe(path) -> "not a file name";
describe(modes) -> "not a list of read, write, append, exclusive with read, write or append in it";
describe(integer) -> "not an integer from 0 to 2^31-1";
describe(operation) -> "neither an atom nor {Engine, Name}";
describe(arguments) -> "not a list";
describe(calls) -> "not a list of {Op, Args}";
describe(call) -> "not the reference of a call";
describe(calls_in_flight) -> "not a list of references of calls";
describe(stream) -> "not a stream";
describe(mode) -> "neither fail_fast nor settle";
describe(concurrency) -> "neither infinity nor a positive integer";
describe(node) -> "neither a node nor any";
describe(submissions) -> "not a list of {CallbackId, Op, Args}";
describe(function) -> "not a function of two arguments";
describe(handler) -> "neither {op, Op} nor a function of one argument";
describe(key_function) -> "not a function of one argument, or not for an operation";
describe(on_error) -> "neither skip nor stop";
describe(list) -> "not a proper list";
describe(pool) -> "not the reference of a pool's run";
describe(nodes) -> "not a list of nodes, at least one and each once, or not with max_items";
describe(units) -> "not an integer from 0 to 2^64-1";
describe(subscription) -> "not the reference of a subscription";
describe(argv) -> "not a list of a program and its arguments, binaries or strings without NUL";
describe(environment) -> "not a list of {Name, Value | false} or a map, of binaries or strings without NUL";
describe(boolean) -> "neither true nor false";
describe(input) -> "neither pipe nor null";
describe(output) -> "neither stream, merge, null nor {file, Path}";
describe(milliseconds_u32) -> "not a number of milliseconds from 0 to 2^32-1";
describe(loop_target) -> "not {Loop, CallbackId}";
describe(subprocess) -> "not a subprocess";
describe(credit) -> "neither once, false nor an integer from 1 to 2^31-1";
describe(signal) -> "neither the name (as sigterm) nor the number of a signal";
describe(socket) -> "neither a socket of gen_tcp or gen_udp nor a port";
describe(term) -> "a term";
describe({options, _Kinds}) -> "not a map of options".

-spec is(kind(), term()) -> boolean().
is(loop, Value) ->
    is_reference(Value) andalso tokamak_nif:loop_owner(Value) =/= badarg;
is(fd, Value) ->
    is_reference(Value) andalso tokamak_nif:fd_reselect(Value, none) =/= badarg;
is(callback_id, Value) ->
    ?IS_CALLBACK_ID(Value);
is(event_type, Value) ->
    lists:member(Value, tokamak_loop:event_types());
is(milliseconds, Value) ->
    is_integer(Value) andalso Value >= 0 andalso Value =< ?MAX_MILLISECONDS;
is(timeout, Value) ->
    ?IS_TIMEOUT(Value);
is(count, Value) ->
    is_integer(Value) andalso Value >= 1 andalso Value =< ?MAX_ID;
is(interval, Value) ->
    is_integer(Value) andalso Value >= 1 andalso Value =< 16#FFFFFFFF;
is(size, Value) ->
    is_integer(Value) andalso Value >= 1 andalso Value =< 16#7FFFFFFF;
is(limit, Value) ->
    is_integer(Value) andalso Value >= 1 andalso Value =< 16777216;
is(timer, Value) ->
    is_integer(Value) andalso Value >= 0 andalso Value =< ?MAX_ID;
is(direction, Value) ->
    Value =:= read orelse Value =:= write;
is(backend, Value) ->
    Value =:= native orelse Value =:= select;
is(pid, Value) ->
    is_pid(Value) andalso node(Value) =:= node();
is(name, Value) ->
    is_atom(Value) andalso Value =/= undefined;
is(iodata, Value) ->
    try iolist_size(Value) of
        _ -> true
    catch
        error:badarg -> false
    end;
is(path, Value) ->
    tokamak_fd:native_path(Value) =/= error;
is(modes, Value) ->
    tokamak_fd:native_flags(Value) =/= error;
is(integer, Value) ->
    is_integer(Value) andalso Value >= 0 andalso Value =< 16#7FFFFFFF;
is(operation, {Engine, Name}) ->
    is_atom(Engine) andalso is_atom(Name);
is(operation, Value) ->
    is_atom(Value);
is(arguments, Value) ->
    is_list(Value) andalso length_or_improper(Value) =/= improper;
is(calls, Value) ->
    is_list_of(Value, fun
        ({Op, Args}) -> is(operation, Op) andalso is(arguments, Args);
        (_) -> false
    end);
is(submissions, Value) ->
    is_list_of(Value, fun
        ({Id, Op, Args}) ->
            is(callback_id, Id) andalso is(operation, Op) andalso is(arguments, Args);
        (_) ->
            false
    end);
is(call, Value) ->
    is_reference(Value) andalso tokamak:is_call(Value);
is(calls_in_flight, Value) ->
    is_list_of(Value, fun(Ref) -> is(call, Ref) end);
is(stream, Value) ->
    tokamak_stream:is_stream(Value);
is(mode, Value) ->
    Value =:= fail_fast orelse Value =:= settle;
is(concurrency, Value) ->
    Value =:= infinity orelse is(size, Value);
is(node, Value) ->
    is_atom(Value);
is(function, Value) ->
    is_function(Value, 2);
is(handler, {op, Op}) ->
    is(operation, Op);
is(handler, Value) ->
    is_function(Value, 1);
is(key_function, Value) ->
    is_function(Value, 1);
is(on_error, Value) ->
    Value =:= skip orelse Value =:= stop;
is(list, Value) ->
    is(arguments, Value);
is(pool, Value) ->
    is_reference(Value) andalso tokamak_pool:is_pool(Value);
is(nodes, Value) ->
    Value =/= [] andalso is_list_of(Value, fun erlang:is_atom/1) andalso
        length(lists:usort(Value)) =:= length(Value);
is(units, Value) ->
    is_integer(Value) andalso Value >= 0 andalso Value =< 16#FFFFFFFFFFFFFFFF;
is(subscription, Value) ->
    is_reference(Value) andalso tokamak_nif:progress_unsubscribe(Value) =/= badarg;
is(argv, Value) ->
    tokamak_subprocess_request:arguments(Value) =/= error;
is(environment, Value) ->
    tokamak_subprocess_request:environment(Value) =/= error;
is(boolean, Value) ->
    is_boolean(Value);
is(input, Value) ->
    Value =:= pipe orelse Value =:= null;
is(output, {file, Path}) ->
    is(path, Path);
is(output, Value) ->
    Value =:= stream orelse Value =:= merge orelse Value =:= null;
is(milliseconds_u32, Value) ->
    is_integer(Value) andalso Value >= 0 andalso Value =< 16#FFFFFFFF;
is(loop_target, {Loop, CallbackId}) ->
    is(loop, Loop) andalso is(callback_id, CallbackId);
is(loop_target, _Value) ->
    false;
is(subprocess, Value) ->
    tokamak_subprocess:is_subprocess(Value);
is(credit, Value) ->
    Value =:= once orelse Value =:= false orelse is(size, Value);
is(signal, Value) ->
    tokamak_subprocess:is_signal(Value);
is(socket, Value) ->
    tokamak_adoption:kind(Value) =/= error;
is(term, _Value) ->
    true;
is({options, Kinds}, Value) ->
    is_map(Value) andalso
        map_size(maps:without(maps:keys(Kinds), Value)) =:= 0 andalso
        lists:all(fun({Key, Kind}) -> is_option(Key, Kind, Value) end, maps:to_list(Kinds)).

is_list_of(Value, Is) ->
    is_list(Value) andalso length_or_improper(Value) =/= improper andalso lists:all(Is, Value).

length_or_improper(List) ->
    try
        length(List)
    catch
        error:badarg -> improper
    end.

is_option(Key, Kind, Options) ->
    case Options of
        #{Key := Value} -> is(Kind, Value);
        _ -> true
    end.
