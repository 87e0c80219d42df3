%% SPDX-License-Identifier: Apache-2.0
%% 100,000 random terms thrown at every native function leave the VM alive and no panic behind.
%%
%% In another VM, since the functions are called behind the back of the modules that check arguments,
%% and with handles of all kinds. The seed is in the error.
-module(tokamak_garbage_terms_tests).

-include_lib("eunit/include/eunit.hrl").

-export([throw_all/1]).

-define(TERMS, 100_000).
-define(THROWERS, 4).
%% So many calls, then the process dies and leaves what it has.
-define(LIFE, 1000).
%% They start and stop what the others need; an application cannot be without them.
-define(LEFT_ALONE, [module_info, load, start, stop, abi_version, op_start_runtime, op_stop_runtime]).

garbage_test_() ->
    tokamak_test:cases(120, [{"garbage harms no native function", fun garbage/0}]).

garbage() ->
    Count = tokamak_garbage:in_peer(?MODULE, throw_all, 120),
    ?debugFmt("~b native functions", [Count]).

%% @doc In the other VM: how many functions there are, and those that panicked.
throw_all(Seed) ->
    Functions = functions(tokamak_nif) ++ functions(tokamak_test_engine),
    Each = ?TERMS div ?THROWERS,
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
    {length(Functions), lists:usort(lists:append(Panics))}.

functions(Module) ->
    [
        {Module, Function, Arity}
     || {Function, Arity} <- Module:module_info(exports), not lists:member(Function, ?LEFT_ALONE)
    ].

throw_in_lives(_Functions, Left, _Seed, Panics) when Left =< 0 ->
    Panics;
throw_in_lives(Functions, Left, Seed, Panics) ->
    {Thrower, Monitor} = spawn_monitor(fun() ->
        _ = rand:seed(exsss, {Seed, Left, 0}),
        exit({panics, throw_terms(list_to_tuple(Functions), ?LIFE, tokamak_garbage:handles(), [])})
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
    {Module, Function, Arity} = tokamak_garbage:pick_element(Functions),
    Arguments = harmless(Function, [tokamak_garbage:term(Handles) || _ <- lists:seq(1, Arity)]),
    Result =
        try
            apply(Module, Function, Arguments)
        catch
            Class:Reason -> {Class, Reason}
        end,
    flush(),
    More = [{Module, Function, Result} || Result =:= {error, nif_panicked} orelse Result =:= {error, nif_panic}],
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
