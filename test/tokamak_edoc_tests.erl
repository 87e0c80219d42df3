%% SPDX-License-Identifier: Apache-2.0
%% The examples in the edoc of the public modules are run as they stand there, each by itself, while the
%% application runs. Their `my_engine' is the engine of the tests.
-module(tokamak_edoc_tests).

-include_lib("eunit/include/eunit.hrl").

every_example_runs_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases([
            {title(Module, Function), fun() -> tokamak_examples:run(with_engine(Example)) end}
         || {Module, Functions} <- modules(),
            {_, _, _, Examples} = Function <- Functions,
            Example <- Examples
        ])
    ).

%% edoc reads all modules for it: on a busy machine that takes longer than the 5 s that eunit gives.
every_public_function_is_called_in_an_example_of_its_module_test_() ->
    {timeout, 120, fun every_public_function_is_called/0}.

every_public_function_is_called() ->
    ?assertEqual([], [
        {Module, Name, Arity}
     || {Module, Functions} <- modules(),
        Called <- [called(Functions)],
        {Name, Arity, Equivalent, _} <- Functions,
        Name =/= module,
        not lists:member({Module, Name, Arity}, Called),
        not lists:member({Module, Name, Equivalent}, Called)
    ]).

the_public_modules_are_those_of_the_design_test_() ->
    {timeout, 120, fun the_public_modules_are_those_of_the_design/0}.

the_public_modules_are_those_of_the_design() ->
    Public = [Module || {Module, _} <- tokamak_examples:public_modules()],
    Named = [
        tokamak, tokamak_loop, tokamak_fd, tokamak_id, tokamak_router, tokamak_pool, tokamak_progress,
        tokamak_subprocess
    ],
    ?assertEqual([], Named -- Public).

modules() ->
    [{Module, tokamak_examples:documented(Doc)} || {Module, Doc} <- tokamak_examples:public_modules()].

called(Functions) ->
    lists:append([tokamak_examples:calls(Example) || {_, _, _, Examples} <- Functions, Example <- Examples]).

title(Module, {module, none, none, _}) ->
    atom_to_list(Module);
title(Module, {Name, Arity, _, _}) ->
    lists:flatten(io_lib:format("~s:~s/~b", [Module, Name, Arity])).

with_engine(Example) ->
    unicode:characters_to_list(string:replace(Example, "my_engine", "tokamak_test_engine", all)).
