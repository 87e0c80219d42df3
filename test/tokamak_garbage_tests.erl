%% SPDX-License-Identifier: Apache-2.0
%% 100,000 random terms thrown at every native function leave the VM alive and no panic behind.
%%
%% In another VM, since the functions are called behind the back of the modules that check arguments,
%% and with handles of all kinds. The seed is in the error.
-module(tokamak_garbage_tests).

-include_lib("eunit/include/eunit.hrl").

-export([throw_all/3]).

-define(TERMS, 100_000).
-define(THROWERS, 4).
%% So many calls, then the process dies and leaves what it has.
-define(LIFE, 1000).
%% They start and stop what the others need; an application cannot be without them.
-define(LEFT_ALONE, [module_info, load, start, stop, abi_version, op_start_runtime, op_stop_runtime]).

garbage_test_() ->
    tokamak_test:cases(120, [{"garbage harms nobody", fun garbage/0}]).

garbage() ->
    Seed = rand:uniform(1 bsl 32),
    tokamak_test:with_directory(fun(Directory) ->
        Peer = tokamak_test:start_peer(),
        {Functions, Panics} = peer:call(Peer, ?MODULE, throw_all, [Directory, ?TERMS, Seed], 120_000),
        ?assertEqual({seed, Seed, []}, {seed, Seed, Panics}),
        ?debugFmt("~b native functions", [Functions]),
        ok = peer:stop(Peer)
    end).

%% @doc In the other VM: how many functions there are, and those that panicked.
throw_all(Directory, Terms, Seed) ->
    %% What is opened for writing is opened here.
    ok = file:set_cwd(Directory),
    {ok, _} = application:ensure_all_started(tokamak),
    _ = logger:set_primary_config(level, critical),
    Functions = [
        {Function, Arity}
     || {Function, Arity} <- tokamak_nif:module_info(exports),
        not lists:member(Function, ?LEFT_ALONE)
    ],
    Each = Terms div ?THROWERS,
    Throwers = [
        spawn_monitor(fun() -> exit({panics, throw_in_lives(Functions, Each, Seed + N, [])}) end)
     || N <- lists:seq(1, ?THROWERS)
    ],
    Panics = [
        receive
            {'DOWN', Monitor, process, Thrower, {panics, Names}} -> Names
        end
     || {Thrower, Monitor} <- Throwers
    ],
    ok = still_works(),
    ok = application:stop(tokamak),
    {length(Functions), lists:usort(lists:append(Panics))}.

throw_in_lives(_Functions, Left, _Seed, Panics) when Left =< 0 ->
    Panics;
throw_in_lives(Functions, Left, Seed, Panics) ->
    {Thrower, Monitor} = spawn_monitor(fun() ->
        _ = rand:seed(exsss, {Seed, Left, 0}),
        exit({panics, throw_terms(list_to_tuple(Functions), ?LIFE, handles(), [])})
    end),
    receive
        {'DOWN', Monitor, process, Thrower, {panics, More}} ->
            throw_in_lives(Functions, Left - ?LIFE, Seed, More ++ Panics);
        {'DOWN', Monitor, process, Thrower, Reason} ->
            [{thrower_died, Reason} | Panics]
    end.

throw_terms(_Functions, 0, _Handles, Panics) ->
    Panics;
throw_terms(Functions, Left, Handles, Panics) ->
    {Function, Arity} = pick_element(Functions),
    Arguments = harmless(Function, [term(Handles, 4) || _ <- lists:seq(1, Arity)]),
    Result =
        try
            apply(tokamak_nif, Function, Arguments)
        catch
            Class:Reason -> {Class, Reason}
        end,
    flush(),
    More = [{Function, Result} || Result =:= {error, nif_panicked} orelse Result =:= {error, nif_panic}],
    throw_terms(Functions, Left - 1, keep(Result, Handles), More ++ Panics).

flush() ->
    receive
        _ -> flush()
    after 0 -> ok
    end.

%% Descriptors of the VM itself are not to be read by us.
harmless(fd_from_integer, [Number]) when is_integer(Number), Number >= 0, Number < 1 bsl 20 ->
    [-1 - Number];
harmless(_Function, Arguments) ->
    Arguments.

%% What native functions return is thrown as well.
keep({ok, Handle}, Handles) ->
    setelement(rand:uniform(tuple_size(Handles)), Handles, Handle);
keep({ok, Handle, _}, Handles) ->
    keep({ok, Handle}, Handles);
keep(_Result, Handles) ->
    Handles.

%% Own and foreign, open and closed, watched and not.
handles() ->
    {ok, Raw} = tokamak_loop:open(#{max_queue => 100}),
    {ok, Select} = tokamak_loop:open(#{backend => select}),
    {ok, Closed} = tokamak_loop:open(),
    ok = tokamak_loop:destroy(Closed),
    {ok, Supervised} = tokamak_loop:new(),
    Foreign = tokamak_router:loop_for(self()),
    {ok, Read, Write} = tokamak_fd:pipe(),
    {ok, ClosedFd, Other} = tokamak_fd:pipe(),
    ok = tokamak_fd:close(ClosedFd),
    {ok, File} = tokamak_fd:open(<<"garbage">>, [read, write]),
    ok = tokamak_loop:add_reader(Raw, Read, 1),
    ok = tokamak_loop:add_writer(Select, Write, 2),
    _ = tokamak_loop:register(Supervised, 3, self()),
    {Raw, Select, Closed, Supervised, Foreign, Read, Write, ClosedFd, Other, File, tokamak_nif:table()}.

pick_element(Tuple) ->
    element(rand:uniform(tuple_size(Tuple)), Tuple).

term(Handles, Depth) ->
    case rand:uniform(12) of
        N when N =< 4 -> pick_element(Handles);
        5 -> rand:uniform(24) - 4;
        6 -> pick_element(integers());
        7 -> pick_element(atoms());
        8 -> pick_element(binaries());
        9 -> pick_element(others());
        10 -> sometimes_large();
        _ when Depth =:= 0 -> [];
        11 -> list(Handles, Depth - 1);
        12 -> compound(Handles, Depth - 1)
    end.

%% They take their time.
sometimes_large() ->
    case rand:uniform(8) of
        1 -> pick_element(large());
        _ -> []
    end.

integers() ->
    Powers = [7, 8, 15, 16, 28, 31, 32, 47, 48, 59, 60, 63, 64, 65, 200],
    list_to_tuple([Sign * ((1 bsl Power) + Off) || Power <- Powers, Sign <- [1, -1], Off <- [-1, 0, 1]]).

atoms() ->
    {read, write, raw, supervised, native, select, undefined, user, timer, append, create, truncate,
        exclusive, true, false, ok, error, infinity, '', all, 'with space', tokamak, echo, sleep, count}.

binaries() ->
    <<_:3/binary, Part/binary>> = <<"a part of a binary">>,
    {<<>>, <<0>>, <<"text">>, <<1:1>>, <<5:13>>, Part, <<255, 254, 253>>, <<"/dev/null">>, <<"garbage">>,
        <<"/nowhere/at/all">>, <<"nul", 0>>}.

others() ->
    {self(), dead(), whereis(tokamak_sup), make_ref(), hd(erlang:ports()), fun lists:map/2, fun() -> ok end,
        1.5, -0.0, 1.0e308, #{}, {}, [], foreign_pid()}.

dead() ->
    {Pid, Monitor} = spawn_monitor(fun() -> ok end),
    receive
        {'DOWN', Monitor, process, Pid, _} -> Pid
    end.

foreign_pid() ->
    binary_to_term(<<131, 88, 119, 10, "other@host", 1:32, 0:32, 1:32>>).

%% Made once: they are what a native function must not recurse into, or copy at leisure.
large() ->
    case get(large) of
        undefined ->
            Deep = fun(Wrap) -> lists:foldl(fun(_, Term) -> Wrap(Term) end, [], lists:seq(1, 20_000)) end,
            Large = {
                Deep(fun(Term) -> [Term] end),
                Deep(fun(Term) -> {Term} end),
                Deep(fun(Term) -> #{k => Term} end),
                Deep(fun(Term) -> [1 | Term] end),
                lists:seq(1, 10_000) ++ improper,
                lists:duplicate(5000, <<"x">>),
                binary:copy(<<"y">>, 1_000_000),
                maps:from_list([{N, N} || N <- lists:seq(1, 1000)]),
                list_to_tuple(lists:seq(1, 10_000))
            },
            _ = put(large, Large),
            Large;
        Large ->
            Large
    end.

list(Handles, Depth) ->
    Items = [term(Handles, Depth) || _ <- lists:seq(1, rand:uniform(5))],
    case rand:uniform(4) of
        1 -> Items ++ tail(Handles, Depth);
        2 -> [pick_element(atoms()) || _ <- Items] ++ tail(Handles, Depth);
        3 -> [pick_element(binaries()) || _ <- Items] ++ tail(Handles, Depth);
        4 -> Items
    end.

tail(Handles, Depth) ->
    case rand:uniform(3) of
        1 -> term(Handles, Depth);
        _ -> []
    end.

compound(Handles, Depth) ->
    Items = [term(Handles, Depth) || _ <- lists:seq(1, rand:uniform(4))],
    case rand:uniform(3) of
        1 -> list_to_tuple(Items);
        2 -> maps:from_list([{Item, term(Handles, Depth)} || Item <- Items]);
        3 -> {pick_element(atoms()), Items}
    end.

%% Loops, descriptors and timers do what they should.
still_works() ->
    {ok, Loop} = tokamak_loop:new(),
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    Timer = tokamak_loop:start_timer(Loop, 1, 2),
    [{2, timer, Timer}] = tokamak_loop:poll(Loop, 5000),
    tokamak_loop:destroy(Loop).
